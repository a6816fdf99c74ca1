// Draws charts, shows times in the viewer's zone, and makes a few controls act at once.
// Pages work without it, but for the chart: links are links and forms are forms.
"use strict";

(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const OPEN_MENUS = "details.dates[open], details.menu[open]";
  let plotly = null;

  function loadPlotly(address) {
    plotly ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = address;
      script.onload = () => resolve(window.Plotly);
      script.onerror = () => {
        plotly = null;
        reject(new Error("plotly.js did not load"));
      };
      document.head.append(script);
    });
    return plotly;
  }

  async function draw(box) {
    const theme = dark.matches ? "dark" : "light";
    const address = new URL(box.dataset.figure, location.href);
    address.searchParams.set("theme", theme);
    box.dataset.drawn = theme;
    try {
      const [library, answer] = await Promise.all([
        loadPlotly(box.dataset.plotly),
        fetch(address, { credentials: "same-origin" }),
      ]);
      if (answer.redirected) return location.reload(); // signed out: the page leads to the login
      if (!answer.ok) throw new Error(`the figure was answered with ${answer.status}`);
      const figure = await answer.json();
      if (!box.isConnected || box.dataset.drawn !== theme) return;
      box.querySelector(".wait")?.remove();
      await library.react(box, figure.data, figure.layout, {
        displayModeBar: false,
        responsive: true,
      });
      box.removeAllListeners("plotly_click");
      box.on("plotly_click", (event) => choose(box, event.points[0]));
      box.dataset.ready = theme;
    } catch (error) {
      console.error(error);
      box.textContent = "";
      const words = document.createElement("p");
      words.className = "wait";
      words.textContent =
        "The chart could not be drawn. Its numbers are in the table below; reload the page to try again.";
      box.append(words);
    }
  }

  // A click on a bar shows its value alone.
  function choose(box, point) {
    const value = point?.data?.meta?.value;
    if (value === undefined) return;
    const address = new URL(location.href);
    if (address.searchParams.getAll(box.dataset.split).includes(value)) return;
    address.searchParams.append(box.dataset.split, value);
    location.assign(address);
  }

  const forms = {
    short: { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" },
    seconds: { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" },
  };

  function showTime(element) {
    const at = new Date(element.dateTime);
    const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
    element.textContent = at.toLocaleString("en-GB", forms[element.dataset.form] ?? forms.short);
    element.title = `${at.toLocaleString("en-GB")} in ${zone}, ${element.dateTime}`;
    element.dataset.shown = "";
  }

  function begin(root) {
    root.querySelectorAll("time[datetime]:not([data-shown])").forEach(showTime);
    root.querySelectorAll(".chart[data-figure]:not([data-drawn])").forEach(draw);
  }

  async function load(details) {
    const place = details.querySelector("[aria-live]");
    try {
      const answer = await fetch(details.dataset.loads, { credentials: "same-origin" });
      if (answer.redirected) return location.reload();
      if (!answer.ok) throw new Error(`answered with ${answer.status}`);
      place.innerHTML = await answer.text(); // our own page, escaped by the server
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
    if (control.matches("select[data-submits]")) control.form.requestSubmit();
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
    const copier = event.target.closest("[data-copies]");
    if (copier) {
      await navigator.clipboard.writeText(document.getElementById(copier.dataset.copies).innerText);
      copier.textContent = "Copied";
    }
    document.querySelectorAll(OPEN_MENUS).forEach((one) => {
      if (!one.contains(event.target)) one.open = false;
    });
  });

  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    document.querySelectorAll(OPEN_MENUS).forEach((one) => {
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
    if (event.detail.requestConfig.verb !== "post" || document.activeElement !== document.body) return;
    document.getElementById("content")?.focus({ preventScroll: true });
  });

  // A page that comes back from the browser's memory may be sent again.
  addEventListener("pageshow", () => {
    document.querySelectorAll("form[data-sent]").forEach((form) => delete form.dataset.sent);
  });

  dark.addEventListener("change", () => document.querySelectorAll(".chart[data-figure]").forEach(draw));
  document.addEventListener("htmx:load", (event) => begin(event.detail.elt));
  begin(document);
})();
