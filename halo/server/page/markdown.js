// Markdown to elements. Text never becomes markup: everything is made as elements and text nodes.

function element(name, ...children) {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}

const INLINE = [
  [/`([^`]+)`/, (m) => element("code", m[1])],
  [/\*\*(.+?)\*\*/, (m) => element("strong", ...inline(m[1]))],
  [/(?<![\w*])\*(?!\s)([^*]+?)\*(?!\w)/, (m) => element("em", ...inline(m[1]))],
  [/\[([^\]]+)\]\((https?:\/\/[^\s)]+)\)/, (m) => {
    const link = element("a", m[1]);
    link.href = m[2];
    link.rel = "noreferrer noopener";
    link.target = "_blank";
    return link;
  }],
];

// The parts of one line or paragraph.
function inline(text) {
  const out = [];
  while (text) {
    let first = null, make = null;
    for (const [pattern, build] of INLINE) {
      const match = pattern.exec(text);
      if (match && (!first || match.index < first.index)) [first, make] = [match, build];
    }
    if (!first) break;
    if (first.index > 0) out.push(text.slice(0, first.index));
    out.push(make(first));
    text = text.slice(first.index + first[0].length);
  }
  if (text) out.push(text);
  return out;
}

function code(lines) {
  const text = lines.join("\n");
  const copy = element("button", "Copy");
  copy.type = "button";
  copy.addEventListener("click", () => navigator.clipboard.writeText(text));
  return element("pre", element("code", text), copy);
}

function cells(line, name) {
  const parts = line.trim().replace(/^\||\|$/g, "").split("|");
  return element("tr", ...parts.map((part) => element(name, ...inline(part.trim()))));
}

const ITEM = /^(\s*)([-*+]|\d+[.)])\s+(.*)$/;

function list(lines) {
  const out = element(/\d/.test(ITEM.exec(lines[0])[2]) ? "ol" : "ul");
  for (const line of lines) {
    const item = ITEM.exec(line);
    if (item) out.append(element("li", ...inline(item[3])));
    else out.lastChild.append(" ", ...inline(line.trim()));
  }
  return out;
}

// A fragment for a text that may still grow: a block of code without its end is one all the same.
export function markdown(text) {
  const out = document.createDocumentFragment();
  const lines = text.split("\n");
  let at = 0;
  const take = (wanted) => {
    const from = at;
    while (at < lines.length && wanted(lines[at])) ++at;
    return lines.slice(from, at);
  };
  while (at < lines.length) {
    const line = lines[at];
    const fence = /^\s*(```+|~~~+)/.exec(line);
    const head = /^(#{1,6})\s+(.*)$/.exec(line);
    if (!line.trim()) {
      ++at;
    } else if (fence) {
      ++at;
      out.append(code(take((l) => !l.trim().startsWith(fence[1]))));
      ++at;
    } else if (head) {
      out.append(element(`h${Math.min(6, head[1].length + 1)}`, ...inline(head[2])));
      ++at;
    } else if (/^\s*([-*_])(\s*\1){2,}\s*$/.test(line)) {
      out.append(element("hr"));
      ++at;
    } else if (ITEM.test(line)) {
      out.append(list(take((l) => l.trim() && (ITEM.test(l) || /^\s/.test(l)))));
    } else if (/^\s*>/.test(line)) {
      const inner = take((l) => /^\s*>/.test(l)).map((l) => l.replace(/^\s*>\s?/, ""));
      out.append(element("blockquote", markdown(inner.join("\n"))));
    } else if (line.includes("|") && /^[\s|:-]*-[\s|:-]*$/.test(lines[at + 1] ?? "")) {
      const rows = take((l) => l.includes("|"));
      out.append(element("table", cells(rows[0], "th"), ...rows.slice(2).map((r) => cells(r, "td"))));
    } else {
      const from = at++;
      take((l) => l.trim() && !/^\s*(```|~~~|>|#{1,6}\s)/.test(l) && !ITEM.test(l));
      out.append(element("p", ...inline(lines.slice(from, at).join("\n"))));
    }
  }
  return out;
}
