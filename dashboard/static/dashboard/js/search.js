// Search: Ctrl-K or ⌘K opens it (page.js), arrows move, Enter opens, Ctrl-Enter filters the page by
// the hit. Results come by htmx while a person types.
"use strict";

(() => {
  const isMac = navigator.platform.startsWith("Mac");
  const palette = () => document.getElementById("search");
  const field = () => document.getElementById("search-text");
  const hits = () => [...document.querySelectorAll("#search .hit")];

  function select(place) {
    const all = hits();
    const chosen = all[(place + all.length) % all.length];
    all.forEach((hit) => hit.setAttribute("aria-selected", String(hit === chosen)));
    field().setAttribute("aria-expanded", String(all.length > 0));
    if (!chosen) return field().removeAttribute("aria-activedescendant");
    field().setAttribute("aria-activedescendant", chosen.id);
    chosen.scrollIntoView({ block: "nearest" });
  }

  const selected = () => hits().findIndex((hit) => hit.getAttribute("aria-selected") === "true");

  function open(hit, isFilter) {
    if (isFilter && hit.dataset.filter) hit.setAttribute("href", hit.dataset.filter);
    palette().hidePopover();
    hit.click();
  }

  document.addEventListener("keydown", (event) => {
    if (event.target !== field()) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      select(selected() + step);
    }
    const hit = hits()[selected()];
    if (event.key !== "Enter" || !hit) return; // without a hit the form leads to the page
    event.preventDefault();
    open(hit, event.ctrlKey || event.metaKey);
  });

  document.addEventListener("htmx:afterSettle", (event) => {
    if (event.target.id === "search-results") select(0);
  });

  function begin() {
    if (!isMac) return;
    document.querySelectorAll("[data-shortcut]").forEach((key) => (key.textContent = "⌘K"));
    document.querySelectorAll("[data-modifier]").forEach((key) => (key.textContent = "⌘"));
  }

  document.addEventListener("htmx:load", begin);
  begin();
})();
