// Shows one zone's prices as they come. A plain look at the stream, not the client library.
'use strict';
const $ = (id) => document.getElementById(id);
const WAIT_MAX_MS = 16000;
const rows = new Map();
let socket = null;
let wait = 1000;

function show(entry) {
  let row = rows.get(entry.key);
  if (!row) {
    row = $('prices').insertRow();
    row.insertCell(); row.insertCell(); row.insertCell();
    row.cells[0].textContent = entry.key;
    rows.set(entry.key, row);
  }
  if (row.dataset.time > entry.timestamp) return;
  row.dataset.time = entry.timestamp;
  if (entry.simulated === true) $('simulated').hidden = false;
  row.cells[1].textContent = entry.price;
  row.cells[2].textContent = entry.timestamp;
}

function showState(message) {
  $('storage').textContent = `${message.storage_backend}, ${message.state}`;
}

// What was the latest before the stream began; the stream goes on by itself if this fails.
async function showLatest(zone) {
  const latest = await fetch(`/api/zones/${encodeURIComponent(zone)}/latest`);
  if (latest.ok) (await latest.json()).entries.forEach(show);
}

function isFinal(code) {
  return [1000, 1002, 1003, 1007, 1009].includes(code) || (code >= 4500 && code <= 4999);
}

function later(act) {
  setTimeout(act, wait + Math.random() * 1000);
  wait = Math.min(wait * 2, WAIT_MAX_MS);
}

function open(zone) {
  if (socket) { socket.onclose = null; socket.close(); }
  const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
  socket = new WebSocket(`${scheme}://${location.host}/ws/market/${encodeURIComponent(zone)}`);
  $('state').textContent = 'connecting';
  socket.onmessage = (event) => {
    const message = JSON.parse(event.data);
    if (message.type === 'price_update') show(message);
    if (message.type === 'connection_established' || message.type === 'backend_state') showState(message);
    if (message.type === 'subscribed') {
      wait = 1000;
      $('state').textContent = 'connected';
      showLatest(zone).catch(() => {});
    }
  };
  socket.onclose = (event) => {
    if (isFinal(event.code)) {
      $('state').textContent = `closed (${event.code} ${event.reason})`;
      return;
    }
    $('state').textContent = `closed (${event.code}), connecting again in ${Math.round(wait / 1000)} s`;
    later(() => open(zone));
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
    showState(await (await fetch('/ws/health')).json());
    const { zones } = await (await fetch('/api/zones')).json();
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
