// Times in the viewer's zone, menus, folds, and forms that are sent once. Pages work without it:
// links are links and forms are forms.
"use strict";

(() => {
  // The person's own zone, where they chose one; else the browser's.
  const zone =
    document.documentElement.dataset.zone || Intl.DateTimeFormat().resolvedOptions().timeZone;
  const clock = { hour: "numeric", minute: "2-digit" };
  const WEEK = 6 * 24 * 3600 * 1000;
  const day = { month: "short", day: "numeric" };
  const full = { dateStyle: "medium", timeStyle: "long", timeZone: zone };

  function showTime(element) {
    const at = new Date(element.dateTime);
    const date = at.toLocaleDateString("en-US", { timeZone: zone });
    const today = new Date().toLocaleDateString("en-US", { timeZone: zone });
    const isToday = date === today;
    const isThisYear = date.split("/")[2] === today.split("/")[2];
    const isSoon = element.dataset.form === "weekday" && at - new Date() < WEEK && at > new Date();
    const form = {
      timeZone: zone,
      ...clock,
      ...(element.dataset.form === "seconds" ? { second: "2-digit" } : {}),
      ...(isToday ? {} : isSoon ? { weekday: "short" } : day),
      ...(isThisYear ? {} : { year: "numeric" }),
    };
    element.textContent = at.toLocaleString("en-US", form);
    element.title = `${at.toLocaleString("en-US", full)} (${zone})`;
    element.dataset.shown = "";
  }

  function begin(root) {
    root.querySelectorAll("time[datetime]:not([data-shown])").forEach(showTime);
  }

  // A part of the page that is read when it is unfolded.
  async function load(details) {
    const place = details.querySelector("[aria-live]");
    try {
      const answer = await fetch(details.dataset.loads, { credentials: "same-origin" });
      if (answer.redirected) return location.reload(); // signed out: the page leads to the login
      if (!answer.ok) throw new Error(`answered with ${answer.status}`);
      place.innerHTML = await answer.text(); // our own page, escaped by the server
      begin(place);
    } catch (error) {
      console.error(error);
      delete details.dataset.loaded;
      place.textContent = "The numbers could not be read. Close this and open it again to retry.";
    }
  }

  document.addEventListener(
    "toggle",
    (event) => {
      const details = event.target;
      if (!details.open || !details.dataset.loads || "loaded" in details.dataset) return;
      details.dataset.loaded = "";
      load(details);
    },
    true,
  );

  document.addEventListener("change", (event) => {
    const control = event.target;
    if (control.matches("select[data-navigates]")) location.assign(control.value);
  });

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!form.matches("form[data-once]")) return;
    if ("sent" in form.dataset) event.preventDefault();
    form.dataset.sent = "";
  });

  document.addEventListener("click", async (event) => {
    const fold = event.target.closest("[data-folds]");
    if (fold) {
      const isOpen = fold.getAttribute("aria-expanded") !== "true";
      fold.setAttribute("aria-expanded", String(isOpen));
      document.getElementById(fold.dataset.folds).classList.toggle("is-open", isOpen);
    }
    document.querySelectorAll("details.pop[open]").forEach((one) => {
      if (!one.contains(event.target)) one.open = false;
    });
    const copier = event.target.closest("[data-copies]");
    if (copier) {
      await navigator.clipboard.writeText(document.getElementById(copier.dataset.copies).innerText);
      copier.textContent = "Copied";
    }
  });

  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
      const search = document.querySelector("[data-search]");
      if (!search) return;
      event.preventDefault();
      search.click();
    }
    if (event.key !== "Escape") return;
    document.querySelectorAll("details.pop[open]").forEach((one) => {
      one.open = false;
      one.querySelector("summary").focus();
    });
  });

  // What is no page of ours (a login that ran out, a refusal) cannot be put into this one.
  document.addEventListener("htmx:beforeSwap", (event) => {
    const { boosted, xhr } = event.detail;
    if (!boosted || xhr.responseText.includes('id="page"')) return;
    event.detail.shouldSwap = false;
    location.assign(xhr.responseURL);
  });

  // A pressed button may be gone with what it did: the keyboard goes on from the content.
  document.addEventListener("htmx:afterSettle", (event) => {
    const isPost = event.detail.requestConfig?.verb === "post"; // none when history is restored
    if (!isPost || document.activeElement !== document.body) return;
    document.getElementById("content")?.focus({ preventScroll: true });
  });

  // A page that comes back from the browser's memory may be sent again.
  addEventListener("pageshow", () => {
    document.querySelectorAll("form[data-sent]").forEach((form) => delete form.dataset.sent);
  });

  document.addEventListener("htmx:load", (event) => begin(event.detail.elt));
  begin(document);
})();
