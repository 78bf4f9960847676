// Keeps a page as new as the service's. Without it everything works by reload.
"use strict";

const PAUSE = 1000; // between two fetches, however much happens
const RETRY = 5000; // after one that failed
const sign = document.getElementById("live");
let number = document.body.dataset.number;
let wanted = number;
let busy = false;
let events = null;

function say(text, stale) {
  sign.textContent = text;
  sign.className = stale ? "stale" : "";
}

// Nobody loses what they type, or the line they read.
function isBusyWithForm() {
  return document.querySelector("main details.act[open]") !== null;
}

function swap(page) {
  const open = [...document.querySelectorAll("main details[open]")].map((each) => each.id);
  const focused = document.activeElement && document.activeElement.id;
  document.querySelector("main").replaceWith(page.querySelector("main"));
  document.title = page.title;
  for (const id of open) {
    const details = id && document.getElementById(id);
    if (details) details.open = true;
  }
  if (focused && document.getElementById(focused)) document.getElementById(focused).focus();
  dress();
}

async function refresh() {
  if (busy || wanted === number || document.hidden) return;
  if (isBusyWithForm()) {
    say("waits while a form is open", true);
    return;
  }
  busy = true;
  let pause = PAUSE;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (answer.redirected) return location.reload(); // the session has ended
    if (!answer.ok) throw new Error(answer.status);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    number = page.body.dataset.number;
    wanted = number;
    if (!isBusyWithForm()) swap(page);
    say("live", false);
  } catch (error) {
    pause = RETRY;
    say("the service does not answer", true);
  }
  setTimeout(() => {
    busy = false;
    refresh();
  }, pause);
}

// Only while somebody sees the page: a browser opens few connections to one host, and each tab would hold one.
function listen() {
  if (events || document.hidden) return;
  events = new EventSource("/events");
  events.onopen = () => say("live", false);
  events.onmessage = (event) => {
    wanted = event.data;
    // Not everybody who watches comes at the same moment.
    setTimeout(refresh, Math.random() * PAUSE);
  };
  events.onerror = () => {
    say("the service does not answer", true);
    // A stream that the service refused is not opened again by itself.
    if (events && events.readyState === EventSource.CLOSED) {
      stop();
      wanted = undefined;
      refresh();
      setTimeout(listen, RETRY);
    }
  };
}

function stop() {
  if (events) events.close();
  events = null;
}

// As the service writes it: 42s, 2m 3s, 1h 5m.
function lasting(seconds) {
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m ${seconds % 60}s`;
  return `${Math.floor(seconds / 3600)}h ${Math.floor((seconds % 3600) / 60)}m`;
}

// Ages count on from what the page said, whatever this browser's clock says.
function tick() {
  for (const time of document.querySelectorAll("time.age[data-age]")) {
    const passed = Math.floor((Date.now() - Number(time.dataset.seen)) / 1000);
    time.textContent = lasting(Number(time.dataset.age) + passed);
  }
}

function seconds(text) {
  const units = { h: 3600, m: 60, s: 1 };
  return text.split(" ").reduce((sum, part) => sum + parseFloat(part) * (units[part.at(-1)] || 0), 0);
}

// Ages count on, and moments are told in the visitor's zone.
function dress() {
  const format = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  for (const time of document.querySelectorAll("time.moment")) {
    const at = new Date(time.dateTime);
    if (!isNaN(at)) {
      time.title = time.dateTime;
      time.textContent = format.format(at);
    }
  }
  for (const time of document.querySelectorAll("time.age")) {
    const age = Math.floor(seconds(time.textContent));
    if (isNaN(age)) continue;
    time.dataset.seen = Date.now();
    time.dataset.age = age;
  }
}

dress();
listen();
setInterval(tick, 1000);
// What only time changes: a box that has become slow, a freeze that is over.
setInterval(() => {
  wanted = undefined;
  refresh();
}, 60000);
document.addEventListener("visibilitychange", () => (document.hidden ? stop() : listen()));
document.addEventListener("toggle", refresh, true);
