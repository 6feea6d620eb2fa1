// Formulas that pymdownx.arithmatex left as \(...\) and \[...\].
for (const node of document.querySelectorAll(".arithmatex")) {
  const text = node.textContent.trim();
  katex.render(text.slice(2, -2), node, { displayMode: text.startsWith("\\["), throwOnError: false });
}
