"What both tabs look like: a theme without foreign fonts, a style sheet, and the keys."

import gradio as gr

THEME = gr.themes.Default(primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])

CSS = """
:root { --leak: #a8430a; --good: #0b6b4f; } .dark { --leak: #ffb27d; --good: #6fd3b1; }
.gradio-container { max-width: 1400px !important; }
#title p { margin: 0; opacity: .75; } #title h1 { font-size: 1.3rem; margin: 0; }
#sides { gap: 12px; } #sides .block:has(> .container > .wrap input[role=listbox]) { padding: 6px 10px; }
.facts {
  display: inline-block; margin-top: 2px; padding-top: 5px; border-top: 1px solid var(--border-color-primary);
  font-size: .8rem; color: var(--body-text-color);
}
.facts .leaked { color: var(--leak); font-weight: 600; } .facts .kept { color: var(--good); }
.facts.leaks { border-top: 2px solid var(--leak); }
.placeholder-content { padding: 0 16px; } .message img { max-height: 240px; }
img[data-small] { image-rendering: pixelated; }
.message img[data-small] { width: 168px; height: 168px; object-fit: contain !important; }
button[aria-label="Share"], button[title="Share"] { display: none !important; }
/* the page's policy would not let it send anything */
#bar { align-items: center; gap: 8px 16px; } #bar #count .wrap { flex-wrap: nowrap; gap: 6px; }
#blind { border: 0; background: none; }
#count label { white-space: nowrap; }
#examples .gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); gap: 8px; }
#examples .gallery-item { min-width: 0; text-align: left; padding: 6px 10px; }
#examples .container {
  display: flex; flex-direction: row-reverse; justify-content: flex-end; align-items: center; gap: 10px;
  padding: 0; border: 0; font-size: .88rem;
}
#examples .container p { margin: 0; }
#examples .container img { width: 60px; height: 60px; flex: none; object-fit: contain; border-radius: 4px; }
#sides .head { align-items: stretch; flex-wrap: nowrap; }
.plain {
  background: transparent !important; border: 1px solid var(--border-color-primary) !important;
  font-weight: 400 !important;
}
#votes { align-items: stretch; } #note p { margin: 0; }
.tight { gap: 8px !important; } .turn { justify-content: center; gap: 8px !important; }
.difference { line-height: 1.7; } .difference del { background: #e69f0055; text-decoration: line-through; }
.difference ins { background: #56b4e955; }
.where { font-size: .85rem; color: color-mix(in srgb, var(--body-text-color) 72%, transparent); margin: 0 0 10px; }
.question { font-size: 1.1rem; font-weight: 600; margin: 0 0 4px; }
.truth { margin: 0 0 12px; color: color-mix(in srgb, var(--body-text-color) 72%, transparent); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); gap: 12px; }
.card {
  border: 1px solid var(--border-color-primary); border-radius: 8px; padding: 10px 14px;
  background: var(--background-fill-primary); overflow-wrap: anywhere;
}
.card h4 { margin: 0 0 6px; font-size: .85rem; color: color-mix(in srgb, var(--body-text-color) 72%, transparent); }
.card.before { margin-bottom: 12px; }
.asked { margin: 0; font-size: .88rem; opacity: .75; white-space: pre-line; }
.said { margin: 2px 0 6px; white-space: pre-line; }
.round { margin: 0 0 12px; overflow-wrap: anywhere; }
.mark {
  display: inline-block; font-size: .75rem; border: 1px solid var(--border-color-primary); border-radius: 99px;
  padding: 0 8px; margin: 0 6px 4px 0; color: color-mix(in srgb, var(--body-text-color) 72%, transparent);
}
.mark.right { color: var(--good); border-color: currentColor; }
.mark.wrong { color: var(--leak); border-color: currentColor; } .mark.origin { border: 0; padding: 0; }
@media (max-width: 640px) {
  #title h1 { font-size: 1.1rem; } #title p { display: none; } .tabitem { padding: 8px 0 !important; }
  #sides { flex-direction: column; flex-wrap: nowrap; }
  #sides > * { width: 100% !important; min-width: 0 !important; max-width: 100% !important; }
  #chat-a, #chat-b, #chat-c, #chat-d { height: 31dvh !important; min-height: 0 !important; flex: none !important; }
  #prompt { position: fixed; left: 0; right: 0; bottom: 0; z-index: 20; border-radius: 0; }
  /* within reach of the thumb, whatever is looked at */
  #bar { flex-wrap: wrap; } #bar > * { min-width: 0 !important; } #bar #script { flex: 1 1 55% !important; }
  #bar #run-script { flex: 0 0 auto !important; }
  #bar #count, #bar #blind { flex: 0 0 auto !important; overflow: visible !important; padding: 0; }
  #count label { padding: 4px 8px; font-size: .85rem; } #blind label { white-space: nowrap; font-size: .85rem; }
  #votes > * { flex: 1 1 22% !important; min-width: 0 !important; } #votes #reason { flex: 1 1 44% !important; }
  #title, #tabs { margin: 0 -20px; width: calc(100% + 40px) !important; } #tabs { margin-bottom: 76px; }
}
"""

HEAD = """<script>
document.addEventListener("keydown", e => {
  const votes = {1: "vote-a", 2: "vote-b", 3: "vote-c", 4: "vote-d", 0: "vote-tie", 9: "vote-bad"};
  const id = e.altKey && votes[e.key] || (e.key === "Escape" && "stop");
  const button = id && document.getElementById(id);
  if (button && !button.disabled) { e.preventDefault(); button.click(); }
});
// an answer is copied as it was said, without the facts under it
const write = navigator.clipboard?.writeText.bind(navigator.clipboard), facts = /\\s*<span class="facts[^]*?<\\/span>/g;
if (write) navigator.clipboard.writeText = text => write(text.replace(facts, "").replaceAll("\\u2060", ""));
document.addEventListener("load", e => {  // a drawn world's pictures are small: larger, with crisp edges
  const picture = e.target, width = picture.naturalWidth;
  if (picture.tagName === "IMG") picture.toggleAttribute("data-small", width > 0 && width <= 128);
}, true);
document.addEventListener("click", e => {  // which tab is open stands in the address
  const tab = e.target.closest?.("button[role=tab]");
  if (!tab) return;
  const q = new URLSearchParams(location.search), name = tab.textContent.trim().toLowerCase();
  if (["chat", "dashboard"].includes(name)) q.set("tab", name);
  else if (tab.closest("#panels")) { q.set("tab", "dashboard"); q.set("panel", name); }
  history.replaceState(null, "", "?" + q);
});
</script>"""
