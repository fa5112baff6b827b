// Keeps those lines of a figure that pass through the ranges chosen on its axes, which stand at x = 0, 1, 2 ...
"use strict";

class Brush {
  constructor() {
    this.ranges = new Map();
    this.axes = null;
    this.scales = [];
    this.isFollowed = false;
  }

  // Takes what was dragged over: a range on the nearest axis, in the place of an earlier one.
  choose({ x, y }) {
    const [low, high] = [...y].sort((a, b) => a - b);
    this.ranges.set(Math.round((x[0] + x[1]) / 2), [low, high]);
  }

  // A range belongs to its axis: it is dropped with other axes, and when the values on its axis have moved.
  keepFor(axes, scales) {
    if (axes !== this.axes) this.clear();
    for (const axis of [...this.ranges.keys()]) if (scales[axis] !== this.scales[axis]) this.ranges.delete(axis);
    [this.axes, this.scales] = [axes, scales];
  }

  clear() {
    this.ranges.clear();
  }

  // The traces with the lines that pass through every range; lines of one trace end with a null.
  kept(traces) {
    return this.ranges.size ? traces.map((trace) => this.keptOf(trace)) : traces;
  }

  keptOf(trace) {
    const [x, y] = [[], []];
    let start = 0;
    trace.x.forEach((value, index) => {
      if (value !== null) return;
      const places = new Map(trace.x.slice(start, index).map((axis, offset) => [axis, trace.y[start + offset]]));
      if ([...this.ranges].every(([axis, [low, high]]) => low <= places.get(axis) && places.get(axis) <= high)) {
        x.push(...trace.x.slice(start, index + 1));
        y.push(...trace.y.slice(start, index + 1));
      }
      start = index + 1;
    });
    return { ...trace, x, y };
  }

  // The ranges as bars beside their axes.
  shapes() {
    return [...this.ranges].map(([axis, [low, high]]) => ({
      type: "rect", x0: axis - 0.03, x1: axis + 0.03, y0: low, y1: high, fillcolor: "$accent", opacity: 0.35, line: { width: 0 },
    }));
  }

  // What is shown, for the note below.
  note(traces) {
    if (!this.ranges.size) return "Drag along an axis to keep the lines that cross it there.";
    const lines = (shown) => shown.reduce((sum, trace) => sum + trace.x.filter((value) => value === null).length, 0);
    return `${lines(this.kept(traces))} of ${lines(traces)} lines cross the chosen ranges.`;
  }
}
