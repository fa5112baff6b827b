// Draws the figures: fetched when they come into view, in the page's colours, again when the study has changed.
"use strict";

const dark = matchMedia("(prefers-color-scheme: dark)");
const QUIET_MS = 4000;

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function scales() {
  return {
    $sequence: [[0, color("line")], [1, color("accent")]],
    $quality: [[0, color("accent")], [0.5, color("low")], [1, color("card")]],
  };
}

// A colour is a name with a $: the figure does not know whether the page is dark.
function coloured(value) {
  if (typeof value === "string" && value.startsWith("$")) return scales()[value] || color(value.slice(1)) || value;
  if (Array.isArray(value)) return value.length && typeof value[0] === "number" ? value : value.map(coloured);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item)]));
  }
  return value;
}

function layoutOf(figure, plot) {
  const axis = { gridcolor: color("grid"), linecolor: color("line"), zerolinecolor: color("grid"), automargin: true, exponentformat: "e" };
  const isNarrow = plot.clientWidth < 640;
  const hasLegend = figure.layout.showlegend !== false && figure.data.filter((trace) => trace.showlegend !== false).length > 1;
  const layout = {
    hovermode: "closest",
    width: plot.clientWidth,
    height: 320,
    ...coloured(figure.layout),
    margin: {
      l: 50, r: 14, t: hasLegend ? 30 : 10, b: figure.layout.grid ? 48 : figure.layout.xaxis?.title ? 40 : 24,
      ...(isNarrow ? {} : figure.layout.margin),
    },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 12, color: color("text") },
    hoverlabel: { bgcolor: color("card"), bordercolor: color("line"), font: { color: color("text") } },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { color: color("muted") } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: color("muted"), activecolor: color("accent") },
  };
  for (const key of Object.keys({ xaxis: 1, yaxis: 1, ...layout })) {
    if (/^[xy]axis/.test(key)) layout[key] = { ...axis, ...layout[key] };
  }
  // A slanted label of the last axis would not fit beside it, and plotly leaves such ones out.
  if (isNarrow && layout.xaxis.ticktext?.length > 3) layout.xaxis.tickangle = -90;
  const columns = isNarrow ? 1 : plot.clientWidth < 1000 ? 3 : 5;
  if (layout.grid?.columns > columns) {
    const cells = figure.data.length || layout.grid.rows * layout.grid.columns;
    layout.grid = { ...layout.grid, rows: Math.ceil(cells / columns), columns };
    layout.height = 60 + 200 * layout.grid.rows;
  }
  return layout;
}

function configOf(name, hasZoom) {
  const save = (format) => (plot) => Plotly.downloadImage(plot, { format, filename: name, width: 1200, height: 700, scale: 2 });
  const icon = Plotly.Icons.camera;
  return {
    displaylogo: false,
    displayModeBar: true,
    // Named one by one: plotly's own set has buttons that send the figure to its cloud.
    modeBarButtons: [[
      ...(hasZoom ? ["zoom2d", "pan2d", "resetScale2d"] : []),
      { name: "Save as PNG", icon, click: save("png") },
      { name: "Save as SVG", icon: Plotly.Icons.disk, click: save("svg") },
    ]],
  };
}

class Figure {
  constructor(element) {
    this.element = element;
    this.plot = element.querySelector(".plot");
    this.note = element.querySelector(".note");
    this.visible = false;
    this.stale = true;
    this.loading = false;
    this.drawnAt = 0;
    this.data = null;
    this.brush = null;
    // Not plotly's own way to follow the window: it forgets the height, and the figure collapses.
    new ResizeObserver(() => this.fit()).observe(this.plot);
    element.addEventListener("change", (event) => {
      if (event.target.matches("[data-log]")) { this.draw(); return; }
      this.stale = true;
      this.load();
    });
  }

  get address() {
    const url = new URL(this.element.dataset.figure, location.href);
    const chosen = (name) => this.element.querySelector(`[data-${name}]`);
    for (const flag of ["raw", "whole"]) if (chosen(flag)?.checked) url.searchParams.set(flag, "true");
    for (const axis of ["x", "y", "objective"]) if (chosen(axis)) url.searchParams.set(axis, chosen(axis).value);
    return url;
  }

  async load() {
    if (!this.visible || !this.stale || this.loading) return;
    const wait = this.drawnAt + QUIET_MS - Date.now();
    if (this.data && this.followed && wait > 0) { setTimeout(() => this.load(), wait); return; }
    this.loading = true;
    this.stale = false;
    this.followed = false;
    let isDrawn = false;
    try {
      const answer = await fetch(this.address);
      const figure = await answer.json();
      if (!answer.ok) throw new Error(figure.detail);
      this.data = figure;
      this.draw();
      isDrawn = true;
    } catch (error) {
      this.note.textContent = `It cannot be shown now: ${error.message}`;
      this.stale = true;
    } finally {
      this.loading = false;
      this.drawnAt = Date.now();
    }
    if (isDrawn) this.load();  // what has become stale meanwhile; after an error the next change tries again
  }

  fit() {
    clearTimeout(this.fitting);
    if (this.data && this.plot.clientWidth !== this.width) this.fitting = setTimeout(() => this.draw(), 100);
  }

  draw() {
    if (!this.data) return;
    this.width = this.plot.clientWidth;
    this.note.textContent = this.data.note;
    this.element.classList.toggle("blank", !this.data.data.length);
    if (!this.data.data.length) { Plotly.purge(this.plot); this.plot.replaceChildren(); return; }
    const layout = layoutOf(this.data, this.plot);
    if (this.element.querySelector("[data-log]")?.checked) {
      for (const key of Object.keys(layout)) if (/^yaxis/.test(key)) { layout[key].type = "log"; delete layout[key].range; }
      const below = this.data.data.some((trace) => trace.y?.some((value) => value !== null && value <= 0));
      if (below) this.note.textContent = `${this.data.note} Values of 0 and below have no place on a logarithmic axis.`.trim();
    }
    const isBrushed = this.element.dataset.name === "parallel";
    const data = isBrushed ? this.brushed(layout) : this.data.data;
    Plotly.react(this.plot, coloured(data), layout, configOf(this.element.dataset.name, !isBrushed));
    if (isBrushed && !this.brush.isFollowed) this.followBrush();
  }

  // The lines that the ranges on the axes leave; the ranges are drawn in the layout.
  brushed(layout) {
    this.brush ??= new Brush();
    this.brush.keepFor(`${layout.xaxis.ticktext} ${this.address.searchParams.get("objective")}`, this.data.layout.meta);
    Object.assign(layout, {
      dragmode: "select", selectdirection: "d", selections: [], shapes: coloured(this.brush.shapes()),
    });
    this.element.querySelector("[data-all]").hidden = !this.brush.ranges.size;
    this.note.textContent = `${this.data.note} ${this.brush.note(this.data.data)}`.trim();
    return this.brush.kept(this.data.data);
  }

  followBrush() {
    this.brush.isFollowed = true;
    this.plot.on("plotly_selected", (chosen) => {
      if (!chosen?.range) return;
      this.brush.choose(chosen.range);
      this.draw();
    });
    const showAll = () => {
      this.brush.clear();
      this.draw();
    };
    this.plot.on("plotly_deselect", showAll);
    this.element.querySelector("[data-all]").addEventListener("click", showAll);
  }

  follow() {
    this.stale = this.followed = true;
    this.load();
  }
}

const figures = [...document.querySelectorAll("[data-figure]")].map((element) => new Figure(element));
const byElement = new Map(figures.map((figure) => [figure.element, figure]));
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const figure = byElement.get(entry.target);
    figure.visible = entry.isIntersecting;
    figure.load();
  }
}, { rootMargin: "300px" });
figures.forEach((figure) => seen.observe(figure.element));
document.addEventListener("study-changed", () => figures.forEach((figure) => figure.follow()));
dark.addEventListener("change", () => figures.forEach((figure) => figure.draw()));
