// What every page does by itself: times that stay right, questions before the irreversible, and parts that follow
// the studies. Without this script every page still works; it only stands still.
"use strict";

const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

function ago(seconds) {
  if (seconds < 5) return "just now";
  const [size, unit] = units.find(([size]) => seconds >= size);
  return `${Math.floor(seconds / size)} ${unit} ago`;
}

function refreshTimes() {
  for (const time of document.querySelectorAll("time[data-ago]")) {
    const shown = ago((Date.now() - Date.parse(time.dateTime)) / 1000);
    if (time.textContent !== shown) time.textContent = shown;
  }
}

function showColumns() {
  const menu = document.querySelector("[data-columns]");
  if (!menu) return;
  const key = `columns:${menu.dataset.columns}`;
  const stored = localStorage.getItem(key);
  const hidden = new Set(stored ? JSON.parse(stored) : (menu.dataset.hidden || "").split(" ").filter(Boolean));
  for (const box of menu.querySelectorAll("[data-column]")) {
    box.checked = !hidden.has(box.dataset.column);
    for (const cell of document.querySelectorAll(`.c-${box.dataset.column}`)) cell.hidden = !box.checked;
  }
}

document.addEventListener("change", (event) => {
  const target = event.target;
  if (target.matches("[data-submit]")) target.form.requestSubmit();
  if (target.matches("[data-column]")) {
    const menu = target.closest("[data-columns]");
    const off = [...menu.querySelectorAll("[data-column]:not(:checked)")].map((box) => box.dataset.column);
    localStorage.setItem(`columns:${menu.dataset.columns}`, JSON.stringify(off));
    showColumns();
  }
});

document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !window.confirm(question)) event.preventDefault();
});

// --- Parts that follow the studies

let fetching = false;
let wanted = false;
let leftOut = false;

// A person writes there, or has opened a form to write.
function isBusy(part) {
  const active = document.activeElement;
  return part.querySelector("details[open] form") || (part.contains(active) && active.matches("input, select, textarea"));
}

// Selects the same link or button in the fresh part.
function placeOf(active) {
  const name = ["href", "aria-label"].find((one) => active.hasAttribute(one));
  return name && `[${name}="${CSS.escape(active.getAttribute(name))}"]`;
}

async function refreshParts() {
  if (fetching) { wanted = true; return; }
  fetching = true;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (!answer.ok || answer.redirected) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-part]")) {
      const fresh = page.querySelector(`[data-part="${part.dataset.part}"]`);
      if (fresh && fresh.innerHTML !== part.innerHTML) {
        if (isBusy(part)) { leftOut = true; continue; }
        const place = part.contains(document.activeElement) ? placeOf(document.activeElement) : null;
        const box = (one) => `input[name="${one.name}"][value="${CSS.escape(one.value)}"]`;
        const chosen = [...part.querySelectorAll("input[type=checkbox][name]:checked")].map(box);
        const opened = [...part.querySelectorAll("details[open] > summary")].map((one) => one.textContent);
        part.innerHTML = fresh.innerHTML;
        for (const one of part.querySelectorAll("summary")) one.parentElement.open ||= opened.includes(one.textContent);
        for (const one of chosen) part.querySelector(one)?.setAttribute("checked", "");
        if (place) part.querySelector(place)?.focus();
      }
    }
    showColumns();
    refreshTimes();
  } catch {
    // The next event, or the reconnect, tries again.
  } finally {
    fetching = false;
    if (wanted) { wanted = false; setTimeout(refreshParts, 500); }
  }
}

// What was left out while a person wrote; a moment later, so that a click still meets what it was aimed at.
function catchUp() {
  if (leftOut) { leftOut = false; setTimeout(refreshParts, 1000); }
}
document.addEventListener("toggle", catchUp, true);
document.addEventListener("focusout", catchUp);

function listen() {
  const live = document.body.dataset.live;
  if (!live) return;
  const link = document.getElementById("link");
  const say = (text) => { link.textContent = text; link.hidden = !text; };
  const catchUp = () => { refreshParts(); document.dispatchEvent(new CustomEvent("study-changed")); };
  let source = null;
  let missed = false;
  let again = null;
  const open = () => {
    source = new EventSource("/api/hpo/events");
    source.addEventListener("hello", (event) => {
      say("");
      if (missed || JSON.parse(event.data).changed_at > Number(document.body.dataset.rendered)) catchUp();
      missed = false;
    });
    source.addEventListener("outage", () => say("The database is away; what you see may be old."));
    source.addEventListener("change", (event) => {
      say("");
      const names = JSON.parse(event.data);
      if (live === "*" || names.length === 0 || names.includes(live)) catchUp();
    });
    source.onerror = () => {
      missed = true;
      say("Not connected; trying again.");
      // After an answer that is no stream (a proxy's 502, a full dashboard) the browser itself does not try again.
      clearTimeout(again);
      if (source.readyState === EventSource.CLOSED) again = setTimeout(follow, 5000);
    };
  };
  // A browser has six connections to one server: hidden tabs must not hold them.
  const follow = () => {
    clearTimeout(again);
    source?.close();
    if (document.hidden) missed = true; else open();
  };
  document.addEventListener("visibilitychange", follow);
  window.addEventListener("pagehide", () => source?.close());
  window.addEventListener("pageshow", (event) => { if (event.persisted) { missed = true; follow(); } });
  follow();
}

const later = document.querySelector("[data-reload]");
if (later) setTimeout(() => location.reload(), 1000 * Number(later.dataset.reload));
// Parts with what changes without a study: presence of workers and of the coordinator.
const aging = document.querySelector("[data-every]");
if (aging) setInterval(() => { if (!document.hidden) refreshParts(); }, 1000 * Number(aging.dataset.every));
showColumns();
refreshTimes();
setInterval(refreshTimes, 5000);
listen();
