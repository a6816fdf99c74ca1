// Draws the charts of a page (templates/components/chart.html) once its numbers stand: the figure
// comes from `data-source`, or from the script element beside the box. Plotly is read only on pages
// that have a chart. Colors of a figure are names of tokens, resolved for the theme in force.
"use strict";

(() => {
  const library = document.currentScript.dataset.plotly;
  const VALUES_MAX = 8;
  const NARROW = 480;
  const CONFIG = { displayModeBar: false, responsive: true };
  let plotly = null;
  let tip = null;

  // plotly writes the style of bold and linked words as an attribute, which the policy forbids; the
  // same as properties is allowed.
  SVGElement.prototype.setAttribute = function (name, value) {
    if (name === "style") this.style.cssText = value;
    else Element.prototype.setAttribute.call(this, name, value);
  };

  function loadPlotly() {
    plotly ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = library;
      script.onload = () => resolve(window.Plotly);
      script.onerror = () => {
        plotly = null;
        script.remove();
        reject(new Error("plotly.js did not load"));
      };
      document.head.append(script);
    });
    return plotly;
  }

  // "var(--c1)" -> "rgb(69, 149, 246)", wherever it stands in the figure.
  function resolver(box) {
    const probe = document.createElement("span");
    box.append(probe);
    const known = new Map();
    const color = (name) => {
      if (!known.has(name)) {
        probe.style.color = name;
        known.set(name, getComputedStyle(probe).color);
      }
      return known.get(name);
    };
    const resolve = (value) => {
      if (typeof value === "string") return value.replace(/var\(--[a-z0-9-]+\)/g, color);
      if (Array.isArray(value)) return value.map(resolve);
      if (value === null || typeof value !== "object") return value;
      return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, resolve(one)]));
    };
    return (figure) => {
      const resolved = resolve(figure);
      resolved.layout.font.family = getComputedStyle(box).fontFamily;
      probe.remove();
      return resolved;
    };
  }

  async function readFigure(box) {
    if (!box.dataset.source) return JSON.parse(document.getElementById(`${box.id}-figure`).textContent);
    const answer = await fetch(box.dataset.source, { credentials: "same-origin" });
    if (answer.redirected) throw new Error("signed out");
    if (!answer.ok) throw new Error(`the figure was answered with ${answer.status}`);
    return answer.json();
  }

  async function draw(box) {
    box.dataset.drawn = "";
    try {
      const [drawing, figure] = await Promise.all([loadPlotly(), readFigure(box)]);
      if (!box.isConnected) return;
      box.querySelector(":scope > .skeleton, :scope > .note")?.remove();
      const { data, layout } = resolver(box)(figure);
      if (layout.xaxis && box.clientWidth < NARROW) thinOut(layout.xaxis);
      showLegend(box, data);
      const isNew = !box.classList.contains("js-plotly-plot");
      await drawing.react(box, data, layout, CONFIG);
      if (!box.isConnected) return drawing.purge(box);
      if (isNew) {
        // A treemap would zoom in; here a click opens the view of the part.
        box.on("plotly_treemapclick", (event) => (choose(box, event), false));
        box.on("plotly_hover", (event) => showTip(box, event));
        box.on("plotly_unhover", hideTip);
        box.on("plotly_click", (event) => choose(box, event));
      }
      box.dataset.ready = "";
    } catch (error) {
      console.error(error);
      box.replaceChildren(words("The chart could not be drawn. Its numbers are in the table below; reload the page to try again."));
    }
  }

  // Every second label, the newest among them.
  function thinOut(axis) {
    if (!axis.tickvals || axis.tickvals.length < 5) return;
    const isKept = (_, at) => (axis.tickvals.length - 1 - at) % 2 === 0;
    // Plotly writes the labels where a chart gives none.
    if (axis.ticktext) axis.ticktext = axis.ticktext.filter(isKept);
    axis.tickvals = axis.tickvals.filter(isKept);
  }

  // The legend stands below the box, in the order of the series, and wraps as text does.
  function showLegend(box, data) {
    const place = document.getElementById(`${box.id}-legend`);
    const isBehind = (trace) => Number(!trace.meta?.isValue); // the previous period comes last
    const shown = data
      .filter((trace) => trace.name && trace.showlegend !== false)
      .sort((a, b) => isBehind(a) - isBehind(b));
    place?.replaceChildren(...(shown.length > 1 ? shown : []).map(legendEntry));
  }

  function legendEntry(trace) {
    const entry = document.createElement("span");
    const swatch = document.createElement("i");
    const isRing = trace.mode === "markers";
    const isDashed = trace.line?.dash && trace.line.dash !== "solid";
    swatch.className = isRing ? "swatch ring" : isDashed ? "swatch dashed" : "swatch";
    swatch.style.color = isRing ? trace.marker.line.color : trace.marker?.color ?? trace.line?.color;
    entry.append(swatch, trace.meta?.name || trace.name);
    return entry;
  }

  function words(text) {
    const note = document.createElement("p");
    note.className = "note warning";
    note.textContent = text;
    return note;
  }

  // Points of a treemap are numbered otherwise than those of bars and lines; streams, which have two
  // ends, are numbered after the parts between which they are (`meta.parts` of the layout).
  function placeOf(box, event) {
    const [point] = event.points;
    const isStream = typeof point.source === "object" && typeof point.target === "object";
    return (point.pointIndex ?? point.pointNumber) + (isStream ? box.layout.meta.parts : 0);
  }

  // The table beside the cursor: total, values by size, and the period before. `meta.hover` of the
  // layout holds a line of text for each place: label, total, period before, change.
  function showTip(box, event) {
    const place = placeOf(box, event);
    const told = box.layout.meta?.hover?.[place];
    if (!told) return;
    const [label, total, before, change] = told;
    const values = box.data
      .filter((trace) => trace.meta?.isValue && trace.visible !== "legendonly")
      .map((trace) => ({ name: trace.meta.name, amount: trace.y[place], words: trace.customdata[place][0] }))
      .filter((one) => one.amount)
      .sort((a, b) => b.amount - a.amount);
    const rows = [["total", label, total], ...values.slice(0, VALUES_MAX).map((one) => ["", one.name, one.words])];
    if (values.length > VALUES_MAX) rows.push(["", `and ${values.length - VALUES_MAX} more`, ""]);
    if (before) rows.push(["before", "Previous period", change ? `${before} · ${change}` : before]);
    const table = document.createElement("table");
    for (const [kind, ...cells] of rows) {
      const row = table.insertRow();
      row.className = kind;
      for (const cell of cells) row.insertCell().textContent = cell;
    }
    tip ??= Object.assign(document.createElement("div"), { className: "tip" });
    tip.replaceChildren(table);
    document.body.append(tip);
    const { clientX, clientY } = event.event;
    const { width, height } = tip.getBoundingClientRect();
    const left = clientX + 16 + width > innerWidth ? clientX - 16 - width : clientX + 16;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${Math.max(8, Math.min(clientY - height / 2, innerHeight - height - 8))}px`;
  }

  function hideTip() {
    tip?.remove();
  }

  // A click shows only the value of the segment under the cursor: plotly itself names every trace of
  // the column. `meta.parameter` of the layout is the filter's name in the address.
  function choose(box, event) {
    const address = box.layout.meta?.addresses?.[placeOf(box, event)];
    if (address) return location.assign(new URL(address, location.href));
    const parameter = box.layout.meta?.parameter;
    const axis = box._fullLayout.yaxis;
    if (!parameter) return;
    const top = box.getBoundingClientRect().top + box._fullLayout.margin.t;
    const height = axis.p2d(event.event.clientY - top - (axis._offset - box._fullLayout.margin.t));
    const place = event.points[0].pointIndex;
    const hit = box.data.find((trace) => {
      const base = trace.base?.[place];
      return trace.meta?.isValue && height >= base && height < base + trace.y[place];
    });
    if (hit?.meta.value === undefined) return;
    const filtered = new URL(location.href);
    if (filtered.searchParams.getAll(parameter).includes(hit.meta.value)) return;
    filtered.searchParams.append(parameter, hit.meta.value);
    location.assign(filtered);
  }

  function begin(root) {
    const boxes = [...root.querySelectorAll(".chart[id]:not([data-drawn])")];
    if (root.matches?.(".chart[id]:not([data-drawn])")) boxes.push(root);
    boxes.forEach(draw);
  }

  function purge(element) {
    if (!window.Plotly) return;
    hideTip();
    if (element.classList?.contains("js-plotly-plot")) window.Plotly.purge(element);
    element.querySelectorAll?.(".js-plotly-plot").forEach((box) => window.Plotly.purge(box));
  }

  // Numbers first: nothing of a chart is asked for before the page has loaded and been painted.
  function afterPaint(act) {
    requestAnimationFrame(() => setTimeout(act));
  }

  document.addEventListener("theme", () => {
    document.querySelectorAll(".chart[data-drawn]").forEach((box) => {
      delete box.dataset.ready;
      draw(box);
    });
  });
  document.addEventListener("htmx:beforeCleanupElement", (event) => purge(event.detail.elt));
  document.addEventListener("charts:remove", (event) => purge(event.detail.elt));
  document.addEventListener("htmx:load", (event) => afterPaint(() => begin(event.detail.elt)));
  if (document.readyState === "complete") afterPaint(() => begin(document));
  else addEventListener("load", () => afterPaint(() => begin(document)));
})();
