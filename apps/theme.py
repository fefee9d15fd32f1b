"What both tabs look like: a theme without foreign fonts, a style sheet, and the keys."

import gradio as gr

from cocoift.arena.session import MOST_BYTES, MOST_SIDE

THEME = gr.themes.Default(
    primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
).set(  # white on blue that can be read
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
    button_primary_background_fill_dark="*primary_700",
)

CSS = """
:root { --leak: #a8430a; --good: #0b6b4f; } .dark { --leak: #ffb27d; --good: #6fd3b1; }
.gradio-container { max-width: 1400px !important; width: 100% !important; margin: 0 auto !important; }
#title p { margin: 0; opacity: .75; } #title h1 { font-size: 1.3rem; margin: 0; }
#sides { gap: 12px; } #sides .block:has(> .container > .wrap input[role=listbox]) { padding: 6px 10px; }
.facts {
  display: inline-block; margin-top: 2px; padding-top: 5px; border-top: 1px solid var(--border-color-primary);
  font-size: .8rem; color: var(--body-text-color);
}
.facts .leaked { color: var(--leak); font-weight: 600; } .facts .kept { color: var(--good); }
.facts.leaks { border-top: 2px solid var(--leak); }
.facts i { font-style: normal; font-weight: 600; }
.message .md { opacity: 1 !important; } .wrap .or { color: inherit !important; }
input.subdued { color: var(--body-text-color) !important; }
#script input, [id^="model-"] input { padding-right: 26px !important; text-overflow: ellipsis; }
#bar { flex-wrap: nowrap; } #bar #script { flex: 1 1 260px; } #scene-picture .icon-button-wrapper { display: none; }
#scene {
  gap: 14px; align-items: flex-start; position: sticky; top: 0; z-index: 15; padding: 4px 0; flex-wrap: nowrap;
  background: var(--body-background-fill);
}
#scene-picture { flex: none !important; width: 168px; min-width: 0 !important; }
#scene-picture img { width: 168px; height: 116px; object-fit: contain; border-radius: 6px; }
#scene-text { font-size: .9rem; min-width: 0; flex: 1 1 auto; padding: 0 !important; }
#scene-text .idea { margin: 0 0 6px; font-weight: 600; }
#scene-text .questions { margin: 0; padding-left: 1.3em; columns: 2; column-gap: 2em; list-style: decimal; }
#scene-text .questions li { break-inside: avoid; }
.asks {
  font-size: .78rem; padding: 0 6px; border-radius: 99px; border: 1px solid var(--border-color-primary);
  white-space: nowrap;
}
.about { font-size: .8rem; min-height: 1.3em; } .about p { margin: 0; }
/* each paragraph in the direction of its own script */
.message p, .message li, .message td, .message th, .message h1, .message h2, .message h3, textarea {
  unicode-bidi: plaintext; text-align: start;
}
.message table { display: block; overflow-x: auto; max-width: 100%; }
.message td, .message th { overflow-wrap: normal; word-break: normal; min-width: 4em; }
.message .edit-textarea { width: 100% !important; min-height: 4.5em; }
.message:has(.edit-textarea) { width: 100% !important; }
.message-row:has(.edit-textarea), .flex-wrap:has(.edit-textarea) { width: 100% !important; max-width: 100% !important; }
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
#sides .head { align-items: stretch; flex-wrap: wrap; } #sides .head > .block { flex: 1 1 250px; }
.plain {
  background: transparent !important; border: 1px solid var(--border-color-primary) !important;
  font-weight: 400 !important;
}
#votes { align-items: stretch; } #note p { margin: 0; }
.tight { gap: 8px !important; } .turn { justify-content: center; gap: 8px !important; }
.difference { line-height: 1.7; } .difference del { background: #e69f0055; text-decoration: line-through; }
.difference ins { background: #56b4e955; text-decoration: underline; }
.difference.legend { font-size: .85rem; margin-bottom: 6px; }
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
  #scene-picture, #scene-picture img { width: 104px; height: 78px; }
  #scene-text { font-size: .78rem; } #scene-text .questions { display: none; } #scene { gap: 8px; padding: 4px 0; }
  .about:empty, .about:not(:has(p)) { display: none; }
  #bar { flex-wrap: wrap; } #bar > * { min-width: 0 !important; } #bar #script { flex: 1 1 55% !important; }
  #bar #run-script { flex: 0 0 auto !important; }
  #bar #count, #bar #blind { flex: 0 0 auto !important; overflow: visible !important; padding: 0; }
  #count label { padding: 4px 8px; font-size: .85rem; } #blind label { white-space: nowrap; font-size: .85rem; }
  [id^="model-"] { flex: 1 1 45% !important; min-width: 0 !important; }
  [id^="stop-"], [id^="retry-"] { flex: 0 0 auto !important; padding: 0 10px !important; }
  #votes > * { flex: 1 1 22% !important; min-width: 0 !important; } #votes #reason { flex: 1 1 44% !important; }
  #title, #tabs { margin: 0 -20px; width: calc(100% + 40px) !important; } #tabs { margin-bottom: 76px; }
}
"""

_SHRINKS = """
// a photograph that is too large to send is made smaller before it leaves; what cannot be read arrives empty under its
// name, so that the server refuses it, and the question with it
const shrunk = async file => {
  if (file.size <= MOST_BYTES) return file;
  try {
    const picture = await createImageBitmap(file), k = Math.min(1, MOST_SIDE / Math.max(picture.width, picture.height));
    const canvas = new OffscreenCanvas(Math.round(picture.width * k), Math.round(picture.height * k));
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    const small = await canvas.convertToBlob({type: "image/jpeg", quality: .92});
    return new File([small], file.name.replace(/[.][^.]*$/, "") + ".jpg", {type: "image/jpeg"});
  } catch { return new File([], file.name, {type: file.type}); }
};
const sent = new WeakSet();
const hand = async (input, files) => {
  const carrier = new DataTransfer();
  for (const file of files) carrier.items.add(await shrunk(file));
  const change = new Event("change", {bubbles: true});
  sent.add(change);
  input.files = carrier.files;
  input.dispatchEvent(change);
};
const large = files => [...files ?? []].some(file => file.size > MOST_BYTES);
for (const [name, files] of [["change", e => e.target.files], ["drop", e => e.dataTransfer?.files],
                             ["paste", e => e.clipboardData?.files]])
  document.addEventListener(name, e => {
    const box = e.target.closest?.("#prompt"), input = box?.querySelector("input[type=file]");
    if (!input || sent.has(e) || !large(files(e))) return;
    e.preventDefault(); e.stopImmediatePropagation();
    hand(input, [...files(e)]);
  }, true);
"""

_SCROLLS = """
// the pane that somebody scrolls takes the others along
document.addEventListener("scroll", e => {
  const pane = e.target, side = pane.closest?.("#sides [id^=chat-]");
  if (!side || !side.matches(":hover, :focus-within")) return;
  const part = pane.scrollTop / Math.max(1, pane.scrollHeight - pane.clientHeight);
  for (const other of document.querySelectorAll("#sides [id^=chat-] [role=log]"))
    if (other !== pane) other.scrollTop = part * (other.scrollHeight - other.clientHeight);
}, true);
"""

_KEYS = """
addEventListener("keydown", e => {  // gradio would take the Tab for typing, and open the list that was left
  if (e.key === "Tab" && e.target.matches?.("[role=combobox]")) e.stopPropagation();
}, true);
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
  if (picture.tagName !== "IMG") return;
  picture.toggleAttribute("data-small", width > 0 && width <= 128);
}, true);
// gradio names what is empty, but does not say what it is, and gives pictures' buttons and tables' filters no name
new MutationObserver(() => {
  for (const empty of document.querySelectorAll(".empty[aria-label]:not([role])")) empty.role = "img";
  for (const box of document.querySelectorAll("input.search-input:not([aria-label])")) box.ariaLabel = box.title;
  const nameless = "button:not([aria-label]):has(img), .image-container button:not([aria-label])";
  for (const button of document.querySelectorAll(nameless))
    if (!button.textContent.trim()) button.ariaLabel = button.querySelector("img")?.alt || "The picture";
}).observe(document.documentElement, {childList: true, subtree: true});
document.addEventListener("click", e => {  // which tab is open stands in the address
  const tab = e.target.closest?.("button[role=tab]");
  if (!tab) return;
  const q = new URLSearchParams(location.search), name = tab.textContent.trim().toLowerCase();
  if (["chat", "dashboard"].includes(name)) q.set("tab", name);
  else if (tab.closest("#panels")) { q.set("tab", "dashboard"); q.set("panel", name); }
  history.replaceState(null, "", "?" + q);
});
"""

_LIMITS = f"const MOST_BYTES = {MOST_BYTES}, MOST_SIDE = {MOST_SIDE};"
HEAD = f"<script>{_LIMITS}{_SHRINKS}{_SCROLLS}{_KEYS}</script>"
