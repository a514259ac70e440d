"""The page of `dashboard.py`, one string; in the place of __STATE__ stands what it shows at first."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>foreact control</title>
<style>
  :root { color-scheme: light dark; font: 15px/1.4 system-ui, sans-serif; }
  body { margin: 1rem auto; max-width: 60rem; padding: 0 1rem; }
  header { display: flex; justify-content: space-between; align-items: center; gap: 1rem; }
  #stop { font-size: 1.4rem; font-weight: 700; padding: .8rem 2.2rem; border: 0; border-radius: .6rem;
    color: #fff; background: #c81e1e; cursor: pointer; }
  #stop:disabled { background: #777; }
  #cameras { display: flex; flex-wrap: wrap; gap: .6rem; margin: .8rem 0; }
  #cameras img { width: 16rem; image-rendering: pixelated; border-radius: .4rem; }
  .row { display: grid; grid-template-columns: 11rem 1fr 9rem; gap: .6rem; align-items: center; }
  .track { position: relative; height: .9rem; border-radius: .3rem; background: #8884; }
  .track i { position: absolute; top: 0; width: .25rem; height: 100%; border-radius: .1rem; }
  .asked { background: #f97316; } .sent { background: #3b82f6; }
  .number { font-variant-numeric: tabular-nums; text-align: right; }
</style>
</head>
<body>
<header><div><h1>foreact control</h1><div id="facts" role="status">waiting for the first control step</div></div>
<button id="stop">STOP</button></header>
<div id="cameras"></div>
<div id="actions"></div>
<p><span class="asked">&nbsp;&nbsp;</span> asked by the policy &nbsp; <span class="sent">&nbsp;&nbsp;</span> sent;
each track goes from the lower to the upper bound</p>
<pre id="faults"></pre>
<script>
const byId = id => document.getElementById(id);
const place = (v, low, high) => v === null ? -9 : Math.max(0, Math.min(1, (v - low) / (high - low))) * 100;
byId("stop").onclick = () => fetch("/stop", {method: "POST", headers: {"X-Foreact": "stop"}});
function mark(kind, at) {
  const i = document.createElement("i"); i.className = kind; i.style.left = `calc(${at}% - .12rem)`;
  i.hidden = at < 0; return i;
}
function show(s) {
  byId("facts").textContent = s.stopped ? `stopped: ${s.stopped}`
    : s.step === null ? "waiting for the first control step"
    : `step ${s.step} · answer ${s.latency_ms ?? "–"} ms, p95 ${s.latency_p95_ms ?? "–"} ms · `
      + `${s.missed} of ${s.steps} steps late · ${s.interventions} interventions`;
  byId("stop").disabled = !!s.stopped;
  const cameras = byId("cameras");
  for (const name of s.cameras) {
    let img = cameras.querySelector(`[data-name="${CSS.escape(name)}"]`);
    if (!img) { img = new Image(); img.dataset.name = name; img.alt = name; cameras.append(img); }
    img.src = `/camera/${encodeURIComponent(name)}?${s.steps}`;
  }
  const rows = s.sent === null ? [] : s.actions.map((name, i) => {
    const row = document.createElement("div"), label = document.createElement("span");
    const track = document.createElement("div"), number = document.createElement("span");
    row.className = "row"; track.className = "track"; number.className = "number";
    label.textContent = name;
    number.textContent = `${s.sent[i]} of ${s.low[i]} to ${s.high[i]}`;
    track.append(mark("asked", place(s.asked ? s.asked[i] : null, s.low[i], s.high[i])),
      mark("sent", place(s.sent[i], s.low[i], s.high[i])));
    row.append(label, track, number); return row;
  });
  byId("actions").replaceChildren(...rows);
  byId("faults").textContent = s.faults.join("\\n");
}
show(__STATE__);
new EventSource("/events").onmessage = event => show(JSON.parse(event.data));
</script>
</body>
</html>
"""
