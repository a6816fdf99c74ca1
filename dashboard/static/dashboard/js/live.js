// Keeps a page current: every few seconds it asks for itself, and an answer that differs replaces
// the elements with `data-live` and an id. The server answers 304 while nothing has changed
// (dashboard/access.py, `cached_page`). What a person has typed, opened or focused stays: such an
// element waits for the next turn.
"use strict";

(() => {
  const SECONDS = 5;
  const OCCUPIED = "details.pop[open], details[data-loads][open], [popover]:popover-open";
  const told = new Map(); // what the server last said of each element
  let tag = null;
  let address = null;

  const isLive = () => document.querySelector("#page[data-live-page]") !== null;
  const elements = () => document.querySelectorAll("[data-live][id]");
  // Form tokens differ in every answer.
  const plain = (element) =>
    element.outerHTML.replace(/(name="csrfmiddlewaretoken" value=")[^"]*/g, "$1");

  function remember() {
    told.clear();
    tag = null;
    address = location.href;
    elements().forEach((element) => told.set(element.id, plain(element)));
  }

  function isOccupied(element) {
    const focused = document.activeElement;
    if (focused !== element && element.contains(focused)) return true;
    if (element.querySelector(OCCUPIED)) return true;
    return [...element.querySelectorAll("input, textarea")].some(
      (field) => field.type !== "hidden" && field.value !== field.defaultValue,
    );
  }

  // What came after the page is not known to the page alone: it stays until that is opened again.
  function keepLater(present, fresh) {
    present.querySelectorAll("[data-later][id]").forEach((part) => {
      fresh.querySelector(`[id="${CSS.escape(part.id)}"]`)?.replaceWith(part.cloneNode(true));
    });
  }

  // A chart that is drawn stays, and draws what has changed.
  function keepCharts(present, fresh) {
    fresh.querySelectorAll(".chart[id]").forEach((box) => {
      const drawn = present.querySelector(`.chart[id="${CSS.escape(box.id)}"]`);
      if (!drawn || drawn.dataset.source !== box.dataset.source) return;
      drawn.setAttribute("aria-label", box.getAttribute("aria-label"));
      box.replaceWith(drawn);
      delete drawn.dataset.drawn;
    });
  }

  function replace(text) {
    const page = new DOMParser().parseFromString(text, "text/html");
    let hasAll = true;
    elements().forEach((present) => {
      const fresh = page.getElementById(present.id);
      if (fresh) keepLater(present, fresh);
      if (!fresh || plain(fresh) === told.get(present.id)) return;
      if (isOccupied(present)) {
        hasAll = false;
        return;
      }
      told.set(present.id, plain(fresh));
      keepCharts(present, fresh);
      document.dispatchEvent(new CustomEvent("charts:remove", { detail: { elt: present } }));
      present.replaceWith(document.adoptNode(fresh));
      htmx.process(fresh);
      document.dispatchEvent(new CustomEvent("htmx:load", { detail: { elt: fresh } }));
    });
    return hasAll;
  }

  async function refresh() {
    if (document.hidden || !isLive()) return;
    const asked = location.href;
    if (asked !== address) remember();
    const answer = await fetch(asked, {
      credentials: "same-origin",
      cache: "no-store",
      headers: { "X-Live": "1", ...(tag ? { "If-None-Match": tag } : {}) },
    });
    if (answer.redirected) return signedOut();
    if (answer.status === 304 || !answer.ok || location.href !== asked) return;
    const text = await answer.text();
    if (replace(text)) tag = answer.headers.get("ETag");
  }

  // What a person types is not lost: they sign in elsewhere, or send it and find it again.
  function signedOut() {
    clearInterval(timer);
    const place = document.getElementById("said");
    if (!place || place.querySelector("[data-signed-out]")) return;
    const words = document.createElement("p");
    words.className = "note warning";
    words.setAttribute("role", "status");
    words.dataset.signedOut = "";
    words.textContent = "You are signed out, so this page is no longer updated. ";
    const link = document.createElement("a");
    link.href = location.href;
    link.textContent = "Log in again";
    words.append(link);
    place.append(words);
  }

  remember();
  document.addEventListener("htmx:afterSwap", remember);
  const timer = setInterval(() => refresh().catch(() => {}), SECONDS * 1000);
})();
