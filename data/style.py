"""The look of the HTML pages: follows the reader's light or dark setting, prints well, fetches nothing."""

CSS = """
:root { color-scheme: light dark; --ink: #1c2430; --dim: #667085; --line: #d9dee6; --card: #f6f8fa;
  --back: #fff; --good: #10b981; --bad: #e11d48; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --dim: #98a2b3; --line: #303845;
  --card: #1a202a; --back: #11151b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 15px/1.55 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 32px 20px 80px; }
h1 { font-size: 26px; margin: 0; } h2 { font-size: 19px; margin: 40px 0 10px; padding-bottom: 4px;
  border-bottom: 1px solid var(--line); } h3 { font-size: 15px; margin: 24px 0 6px; }
p { max-width: 75ch; margin: 8px 0; } .sub { color: var(--dim); }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 10px 12px;
  overflow-x: auto; font: 13px/1.5 ui-monospace, monospace; white-space: pre-wrap; }
.facts { display: flex; flex-wrap: wrap; gap: 10px; margin: 18px 0; }
.facts div { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 8px 16px; }
.facts b { display: block; font-size: 20px; } .facts span { color: var(--dim); font-size: 13px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 10px 0; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--dim); padding-bottom: 4px; }
th, td { text-align: left; padding: 4px 14px 4px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { color: var(--dim); font-weight: 600; font-size: 13px; } td.number { text-align: right; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: 16px;
  margin: 12px 0; }
figure { margin: 12px 0; max-width: 560px; } .grid figure { margin: 0; }
figcaption { color: var(--dim); font-size: 13px; margin-top: 4px; }
figure.good figcaption::before { content: "✓ "; color: var(--good); }
figure.bad figcaption::before { content: "✗ "; color: var(--bad); }
video, img { width: 100%; border-radius: 6px; background: var(--card); display: block; }
video, img.pixels { image-rendering: pixelated; }
svg.plot { width: 100%; height: auto; font: 11px system-ui, sans-serif; fill: var(--dim); }
svg.plot .grid { stroke: var(--line); } svg.plot .track { fill: var(--card); }
svg.plot .whisker { stroke: var(--ink); stroke-width: 1.4; fill: none; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 12px; font-size: 12px; color: var(--dim); }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 4px; }
@media print { main { max-width: none; } }
"""

# Play only what can be seen: a page may hold a hundred videos.
SCRIPT = """
const seen = new IntersectionObserver(entries => entries.forEach(({target, isIntersecting}) =>
  isIntersecting ? target.play().catch(() => {}) : target.pause()), {threshold: 0.3});
document.querySelectorAll("video").forEach(video => seen.observe(video));
"""
