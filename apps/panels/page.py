"The look of the dashboard and its hands: figures in the dark, a legend, a wall of pictures; a point leads to samples."

from importlib import resources

DARK = resources.files("cocoift.viz").joinpath("dark.css").read_text(encoding="utf-8")

CSS = (
    """
#ideas, #data-ideas { max-width: 62em; font-size: .92rem; }
.figure { gap: 0 !important; border: 1px solid var(--border-color-primary); border-radius: 8px; overflow: visible;
  background: var(--background-fill-primary); }
.figure .block { border: 0; background: transparent; box-shadow: none; }
.figure-head { display: flex; gap: 12px; justify-content: space-between; align-items: flex-start; padding: 12px 16px
  0; }
.figure-head h3 { margin: 0; font-size: 1rem; font-weight: 600; }
.figure-head p { margin: 2px 0 0; font-size: .8rem; color: color-mix(in srgb, var(--body-text-color) 72%,
  transparent); }
.tools { display: flex; gap: 6px; flex: none; font-size: .75rem; }
.tools button, .tools summary { border: 1px solid var(--border-color-primary); border-radius: 6px; padding: 2px 8px;
  cursor: pointer; list-style: none; line-height: 1.5; background: var(--background-fill-secondary); }
.tools button, .brick, .pager button { font-family: inherit; font-weight: 400; color: inherit; }
.tools button { font-size: .75rem; } .pager button { font-size: .85rem; } .brick span { font-weight: 400; }
.tools button:hover, .tools summary:hover { border-color: var(--color-accent); }
.tools details { position: relative; } .tools summary::-webkit-details-marker { display: none; }
.tools details > div { position: absolute; right: 0; top: 28px; z-index: 9; padding: 6px; width: max-content;
  max-width: min(340px, 80vw); border: 1px solid var(--border-color-primary); border-radius: 8px;
  background: var(--background-fill-primary); box-shadow: 0 6px 20px #0003; }
.save div { display: grid; gap: 4px; } .save div button { text-align: left; padding: 5px 10px; }
.what > div { padding: 2px 12px 8px !important; width: min(340px, 80vw) !important; } .what p { line-height: 1.5; }
.figure .js-plotly-plot .nsewdrag { cursor: default; }
.loading { margin: 0; padding: 14px 16px; min-height: 3em; font-size: .9rem; animation: breathe 1.4s ease-in-out
  infinite; }
.figure:has(.loading) { min-height: 320px; }
@keyframes breathe { 50% { opacity: .75; } } @media (prefers-reduced-motion: reduce) { .loading { animation: none; } }
.legend { display: flex; flex-wrap: wrap; gap: 2px 18px; margin: 0; padding: 6px 0; list-style: none; font-size:
  .88rem; }
.legend i { font-style: normal; display: inline-block; width: 1.2em; text-align: center; }
.legend small { margin-left: 6px; color: color-mix(in srgb, var(--body-text-color) 72%, transparent); }
#legend:has(ul), #training-legend:has(ul) { position: sticky; top: 0; z-index: 5; background:
  var(--body-background-fill); }
.dark .legend i[data-colour="#000000"] { color: #e3e6ea !important; }
.min_value, .max_value { color: var(--body-text-color) !important; }
#scoreboard .header-table th { cursor: pointer; }
#scoreboard .header-table th:focus-visible { outline: 2px solid var(--color-accent); outline-offset: -2px; }
#scoreboard-words dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 14px; margin: 0; font-size:
  .8rem; }
#scoreboard-words dt { font-family: var(--font-mono); } #scoreboard-words dd { margin: 0; }
.pager { display: flex; gap: 8px; align-items: center; margin-bottom: 8px; } .pager .where { margin: 0 auto 0 0; }
.pager button { border: 1px solid var(--border-color-primary); border-radius: 6px; padding: 4px 12px; }
.pager button:disabled { opacity: .45; }
.wall { display: grid; grid-template-columns: repeat(auto-fill, minmax(170px, 1fr)); gap: 12px; }
.brick { display: flex; flex-direction: column; gap: 4px; padding: 8px; text-align: left; font-size: .82rem; cursor:
  pointer;
  border: 1px solid var(--border-color-primary); border-radius: 8px; background: var(--background-fill-primary);
  overflow-wrap: anywhere; }
.brick:hover, .brick:focus-visible { border-color: var(--color-accent); }
.brick img { width: 100%; height: 110px; object-fit: contain; background: var(--background-fill-secondary);
  border-radius: 4px; }
.brick .asked { font-weight: 600; opacity: 1; } .brick .mark { margin: 0 2px 0 0; }
.brick small { color: color-mix(in srgb, var(--body-text-color) 72%, transparent); margin-top: auto; }
#config .scroll { overflow-x: auto; } #config table { border-collapse: collapse; width: 100%; font-size: .85rem; }
#config th, #config td { text-align: left; padding: 5px 12px; border-top: 1px solid var(--border-color-primary);
  overflow-wrap: anywhere; } #config td:first-child { font-family: var(--font-mono); font-size: .8rem; }
@media (max-width: 640px) {
  .row:has(> .figure) { flex-direction: column; } .figure { min-width: 100% !important; }
  .figure-head { flex-direction: column; gap: 6px; } .tools details > div { right: auto; left: 0; }
  #metric, #history, #under { min-width: 100% !important; }
  .wall { grid-template-columns: repeat(auto-fill, minmax(140px, 1fr)); gap: 8px; }
  #scoreboard-words dl { grid-template-columns: 1fr; } #scoreboard-words dd { margin-bottom: 4px; }
}
"""
    + f".dark .figure {{\n{DARK}\n}}"
)

HEAD = """<script>
const leading = new Set(["leakage", "terse_rate", "register_copying", "instruction_carry", "history_effect", "terse"]);
function behind(place, point) {  // the samples, or the conversations, that a point was counted from
  const of = point.customdata, name = place.closest("[id^=plot-]")?.id.slice(5), q = new
  URLSearchParams(location.search);
  const send = (kind, detail) => document.dispatchEvent(new CustomEvent("cocoift:" + kind, {detail}));
  if (of?.folder) {
    const what = of.effect || of.metric || "", under = of.history === "difference" || of.effect ? "forced_short" :
  of.history;
    q.set("tab", "dashboard"); q.set("panel", "samples"); history.replaceState(null, "", "?" + q);
    send("open", {folder: of.folder, under: under || "", kind: of.capability || "",
      filter: leading.has(what) ? "A terse" : /accuracy|right|content|capab/.test(what) || of.capability ? "A wrong"
  : "all"});
  } else if (name === "lengths") send("pick", {length: String(point.x)});
  else if (name === "formats") send("pick", {source: String(point.y), format: point.data.name});
  else if (name === "formats-by-round") send("pick", {format: point.data.name});
  else return;
  if (name !== undefined && !of?.folder) document.getElementById("conversations")?.scrollIntoView({behavior: "smooth"});
}
function sortBy(heading) {  // what its menu does in three steps, and no key can
  const up = heading.querySelector(".sort-indicator")?.getAttribute("aria-label")?.includes("ascending");
  heading.querySelector(".cell-menu-button").click();
  requestAnimationFrame(() => [...document.querySelectorAll(".cell-menu [role=menuitem]")]
    .find(item => item.textContent.includes(up ? "Sort descending" : "Sort ascending"))?.click());
}
const headings = "#scoreboard .header-table th", headed = e => e.target.closest?.("button") ? null :
  e.target.closest?.(headings);
document.addEventListener("click", e => {  // when the click is over, for it closes open menus
  const heading = headed(e); if (heading) setTimeout(() => sortBy(heading));
}, true);
document.addEventListener("keydown", e => {
  const heading = (e.key === "Enter" || e.key === " ") && headed(e);
  if (heading) { e.preventDefault(); e.stopPropagation(); sortBy(heading); }
}, true);
function set(part, name, value) { if (part.getAttribute(name) !== value) part.setAttribute(name, value); }
new MutationObserver(() => {
  for (const heading of document.querySelectorAll(headings)) {
    set(heading, "tabindex", "0");
    set(heading, "aria-sort", heading.querySelector(".sort-indicator")?.getAttribute("aria-label")
      ?.replace("Sorted ", "") ?? "none");
  }
  for (const place of document.querySelectorAll(".js-plotly-plot:not([data-heard])")) if (place.on) {
    place.dataset.heard = "yes";
    place.on("plotly_click", e => behind(place, e.points[0]));
    place.on("plotly_hover", e => { const p = e.points[0];
      const leads = p.customdata?.folder || /plot-(lengths|formats)/.test(place.closest("[id^=plot-]")?.id || "");
      place.querySelectorAll(".nsewdrag").forEach(d => d.style.cursor = leads ? "pointer" : "default"); });
  }
}).observe(document.documentElement, {childList: true, subtree: true});
document.addEventListener("click", e => {  // one explanation at a time
  for (const open of document.querySelectorAll(".tools details[open]")) if (!open.contains(e.target)) open.open = false;
});
document.addEventListener("keydown", e => {
  if (e.key === "Escape") document.querySelectorAll(".tools details[open]").forEach(d => { d.open = false; });
});
</script>"""
