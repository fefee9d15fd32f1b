"What both tabs look like: a theme without foreign fonts, a style sheet, and the keys."
import gradio as gr

THEME = gr.themes.Default(primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])

CSS = """
.gradio-container { max-width: 1400px !important; }
#title p { margin: 0; } #title h1 { font-size: 1.3rem; margin: 0; }
.facts { display: inline-block; margin-top: 6px; font-size: .78rem; opacity: .85; }
.difference { line-height: 1.7; } .difference del { background: #e69f0055; text-decoration: line-through; } .difference ins { background: #56b4e955; }
.marks { display: flex; flex-direction: column; gap: 6px; font-size: .85rem; } .marks b.leaked { color: #b3261e; } .dark .marks b.leaked { color: #ff9b91; }
@media (max-width: 640px) {
  #sides { flex-direction: column; } #chat-a, #chat-b { height: 38dvh !important; min-height: 0 !important; flex: none !important; }
}
"""

HEAD = """<script>
document.addEventListener("keydown", e => {
  const id = e.altKey && {1: "vote-a", 2: "vote-b", 0: "vote-tie", 9: "vote-bad", r: "random"}[e.key] || (e.key === "Escape" && "stop");
  const button = id && document.getElementById(id);
  if (button && !button.disabled) { e.preventDefault(); button.click(); }
});
</script>"""
