// htmx puts sections in place; this says when the connection is lost, and draws the graph.
// Stands before htmx in the page: the first request may fail before a later script listens.
"use strict";
(() => {
  const SILENT_MS = 12000; // the server sends something every 5 s
  const AGAIN_MS = 1000;
  const lost = document.getElementById("lost");
  const live = document.getElementById("live");
  let heard = Date.now();

  const connected = () => { heard = Date.now(); lost.hidden = true; };
  live.addEventListener("htmx:sse:after:connection", connected);
  live.addEventListener("htmx:sse:before:message", connected);
  live.addEventListener("htmx:sse:error", () => { lost.hidden = false; });
  live.addEventListener("htmx:sse:close", () => { lost.hidden = false; setTimeout(again, AGAIN_MS); });
  // htmx comes back to a stream that broke, but not to one whose first request failed
  const again = () => {
    if (live._htmx?.sse) return;
    lost.hidden = false;
    setTimeout(() => { if (!live._htmx?.sse) htmx.trigger(live, "again"); }, AGAIN_MS);
  };
  live.addEventListener("htmx:finally:request", again);
  setInterval(() => { if (Date.now() - heard > SILENT_MS && !document.hidden) lost.hidden = false; }, 1000);

  let plot = null;
  const place = document.getElementById("plot");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function make(data) {
    const clock = (_, times) => times.map((time) => new Date(time * 1000).toLocaleTimeString("en-GB"));
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--edge"), width: 1 }, ticks: { show: false } };
    return new uPlot({
      width: place.clientWidth, height: 180, padding: [8, 30, 0, 0], cursor: { y: false }, legend: { show: false },
      scales: { y: { range: (_, low, high) => [0, Math.max(1, high * 1.1)] } },
      axes: [{ ...axis, size: 30, space: 70, values: clock }, { ...axis, size: 48 }],
      series: [{ label: "time" }, { label: "requests/s", stroke: colour("--line"), width: 2, points: { show: false } }],
    }, data, place);
  }

  function draw() {
    const figure = document.querySelector("#graph figure");
    place.hidden = !figure;
    document.documentElement.classList.toggle("plotted", Boolean(figure));
    if (!figure) return;
    const data = [JSON.parse(figure.dataset.times), JSON.parse(figure.dataset.values)];
    if (plot) plot.setData(data); else plot = make(data);
  }

  function anew() {
    if (plot) { plot.destroy(); plot = null; }
    draw();
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", anew);
  new ResizeObserver(() => { if (plot && place.clientWidth) plot.setSize({ width: place.clientWidth, height: 180 }); }).observe(place);
  new MutationObserver(draw).observe(document.getElementById("graph"), { subtree: true, childList: true, attributes: true });
  draw();
})();
