// The theme switch, before anything is painted: the system decides until someone chooses.
"use strict";

(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const changed = () => document.dispatchEvent(new CustomEvent("theme"));
  try {
    const chosen = localStorage.getItem("theme");
    if (chosen) root.dataset.theme = chosen;
  } catch {
    // Storage is blocked: follow the system.
  }

  function choose(theme) {
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
    try {
      if (theme) localStorage.setItem("theme", theme);
      else localStorage.removeItem("theme");
    } catch {
      // It lasts for this page only.
    }
    changed();
    mark(document);
  }

  // The choice in force is pressed.
  function mark(element) {
    element.querySelectorAll("[data-theme-choice]").forEach((choice) => {
      choice.setAttribute("aria-pressed", choice.dataset.themeChoice === (root.dataset.theme ?? ""));
    });
  }

  document.addEventListener("click", (event) => {
    const choice = event.target.closest("[data-theme-choice]");
    if (choice) choose(choice.dataset.themeChoice);
    if (!event.target.closest("[data-toggle-theme]")) return;
    const isDark = root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
    choose(isDark ? "light" : "dark");
  });
  system.addEventListener("change", changed);
  document.addEventListener("DOMContentLoaded", () => mark(document));
  document.addEventListener("htmx:load", (event) => mark(event.detail.elt));
})();
