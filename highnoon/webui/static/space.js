// The search space as rows: added and removed without a round trip, with the fields of their kind, and drawn to scale.
"use strict";

const space = document.getElementById("space");
const SVG = "http://www.w3.org/2000/svg";

function field(row, part) {
  return row.querySelector(`[name$="-${part}"]`);
}

// Where values of this domain lie: nine even draws of a range, or one point per choice.
function draw(row) {
  const kind = field(row, "kind").value;
  row.dataset.kind = kind;
  const scale = row.querySelector(".p-scale");
  const [low, high, step] = ["low", "high", "step"].map((part) => Number(field(row, part).value));
  const isLog = kind.includes("log");
  let places = [];
  if (kind === "categorical") {
    const count = field(row, "choices").value.split(",").filter((word) => word.trim()).length;
    places = Array.from({ length: Math.min(count, 24) }, (_, index) => (index + 0.5) / count);
  } else if (low < high && (!isLog || low > 0)) {
    const steps = step > 0 && !isLog ? Math.floor((high - low) / step) + 1 : 0;
    const stepped = steps <= 24 ? steps : 0;
    const count = stepped || 9;
    places = Array.from({ length: count }, (_, index) =>
      isLog ? (low * (high / low) ** (index / 8) - low) / (high - low)
        : stepped ? (index * step) / (high - low) : index / 8);
  }
  const line = document.createElementNS(SVG, "line");
  for (const [name, value] of Object.entries({ x1: 4, x2: 116, y1: 9, y2: 9 })) line.setAttribute(name, value);
  const dots = places.map((place) => {
    const dot = document.createElementNS(SVG, "circle");
    for (const [name, value] of Object.entries({ cx: 4 + 112 * place, cy: 9, r: 3 })) dot.setAttribute(name, value);
    return dot;
  });
  scale.replaceChildren(...(places.length ? [line, ...dots] : []));
}

function prepare(row) {
  const remove = row.querySelector(".p-remove");
  remove.hidden = false;
  remove.addEventListener("click", () => { row.remove(); });
  row.addEventListener("input", () => draw(row));
  draw(row);
}

let next = 0;

function add(event) {
  event.preventDefault();
  const row = space.firstElementChild ? space.lastElementChild.cloneNode(true) : spare.cloneNode(true);
  row.classList.remove("wrong");
  row.querySelectorAll(".hint").forEach((hint) => hint.remove());
  for (const input of row.querySelectorAll("input, select")) {
    input.name = input.name.replace(/-\d+-/, `-${next}-`);
    input.removeAttribute("aria-invalid");
    if (input.matches("input")) input.value = "";
  }
  next += 1;
  space.append(row);
  prepare(row);
  field(row, "name").focus();
}

let spare = null;
if (space) {
  spare = space.firstElementChild.cloneNode(true);
  next = space.children.length;
  [...space.children].forEach(prepare);
  document.getElementById("add-param").addEventListener("click", add);
  document.querySelector('[aria-invalid="true"]')?.focus();
}
