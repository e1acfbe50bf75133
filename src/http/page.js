// Shows one zone's prices as they come. A plain look at the stream, not the client library.
'use strict';
const $ = (id) => document.getElementById(id);
const WAIT_MAX_MS = 16000;
const rows = new Map();
// The keys that came in the snapshot that is under way.
let came = new Set();
let socket = null;
let wait = 1000;
// What the gateway said before it closed: why, and not to come back before so many milliseconds.
let refusal = '';
let retryAfterMs = 0;

function show(entry) {
  let row = rows.get(entry.key);
  if (!row) {
    row = $('prices').insertRow();
    row.insertCell(); row.insertCell(); row.insertCell();
    row.cells[0].textContent = entry.key;
    rows.set(entry.key, row);
  }
  // What comes late may be older than what is shown. A snapshot says what is the latest.
  if (entry.snapshot) came.add(entry.key);
  else if (entry.late && row.dataset.time > entry.timestamp) return;
  row.dataset.time = entry.timestamp;
  if (entry.simulated === true) $('simulated').hidden = false;
  row.cells[1].textContent = entry.price ?? `${entry.bid} / ${entry.ask}`;
  row.cells[2].textContent = entry.timestamp;
}

function showState(message) {
  $('storage').textContent = `${message.storage_backend}, ${message.state}`;
}

function remove(key, removal) {
  const row = rows.get(key);
  if (!row || (removal.late && row.dataset.time > removal.timestamp)) return;
  row.remove();
  rows.delete(key);
}

function isFinal(code) {
  return [1000, 1002, 1003, 1007, 1009].includes(code) || (code >= 4500 && code <= 4999);
}

// Says in how many milliseconds.
function later(act, atLeast = 0) {
  const ms = Math.max(wait + Math.random() * 1000, atLeast);
  setTimeout(act, ms);
  wait = Math.min(wait * 2, WAIT_MAX_MS);
  return ms;
}

function open(zone) {
  if (socket) { socket.onclose = null; socket.close(); }
  // Relative to the page, which a proxy may serve below a path of its own.
  const url = new URL(`ws/market/${encodeURIComponent(zone)}?snapshot=1`, document.baseURI);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  socket = new WebSocket(url);
  $('state').textContent = 'connecting';
  refusal = '';
  retryAfterMs = 0;
  socket.onmessage = (event) => {
    const message = JSON.parse(event.data);
    if (message.type === 'price_update') show(message);
    if (message.type === 'key_removed') remove(message.key, message);
    if (message.type === 'zone_removed') [...rows.keys()].forEach((key) => remove(key, message));
    if (message.type === 'connection_established' || message.type === 'backend_state') showState(message);
    if (message.type === 'error' && !message.temporary) refusal = `: ${message.message}`;
    if (message.type === 'closing') retryAfterMs = message.retry_after_ms || 0;
    if (message.type === 'subscribed') {
      wait = 1000;
      $('state').textContent = 'connected';
    }
    // What was shown before a snapshot may be old, or gone: keys that do not come in it are.
    if (message.snapshot && message.type !== 'price_update') came = new Set();
    if (message.type === 'snapshot_end' && message.recovered) {
      [...rows.keys()].filter((key) => !came.has(key)).forEach((key) => remove(key, {}));
    }
  };
  socket.onclose = (event) => {
    if (isFinal(event.code)) {
      $('state').textContent = `closed (${event.code} ${event.reason})${refusal}`;
      return;
    }
    const seconds = Math.round(later(() => open(zone), retryAfterMs) / 1000);
    $('state').textContent = `closed (${event.code}), connecting again in ${seconds} s`;
  };
}

function choose(zone) {
  rows.clear();
  $('prices').replaceChildren();
  $('simulated').hidden = true;
  open(zone);
}

async function start() {
  try {
    showState(await (await fetch('ws/health')).json());
    const { zones } = await (await fetch('api/zones')).json();
    if (!zones || zones.length === 0) throw new Error('no zone has prices yet');
    $('zones').replaceChildren(...zones.map(({ zone }) => new Option(zone, zone)));
    $('zones').onchange = () => choose($('zones').value);
    choose(zones[0].zone);
  } catch (error) {
    $('state').textContent = error.message;
    later(start);
  }
}

start();
