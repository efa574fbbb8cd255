"use strict";
const one = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
for (const element of all(".needs-script, #theme")) element.hidden = false;

// Theme: the reader's system decides until the button does.
const root = document.documentElement;
const remembered = { get: () => { try { return localStorage.getItem("theme"); } catch { return null; } },
  set: value => { try { localStorage.setItem("theme", value); } catch { /* a file opened in a strict browser */ } } };
const isDark = () => (root.style.colorScheme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
function setTheme(theme) {
  if (theme) root.style.colorScheme = theme;
  one("#theme").textContent = isDark() ? "Light page" : "Dark page";
}
setTheme(remembered.get());
one("#theme").addEventListener("click", () => { const next = isDark() ? "light" : "dark"; remembered.set(next); setTheme(next); });

// Sorting: numbers by data-order, text by name; a second press turns the order round.
for (const table of all("table[data-sortable]")) {
  all("thead th", table).forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => sort(table, head, column));
  });
}
function sort(table, head, column) {
  const numeric = head.classList.contains("number");
  const before = head.getAttribute("aria-sort");
  const descending = before ? before === "ascending" : numeric;
  const key = row => numeric ? parseFloat(row.cells[column].dataset.order ?? "-Infinity") : row.cells[column].textContent;
  const compare = (a, b) => numeric ? (key(a) - key(b) || 0) : key(a).localeCompare(key(b));
  const body = table.tBodies[0];
  body.append(...[...body.rows].sort((a, b) => descending ? compare(b, a) : compare(a, b)));
  all("th[aria-sort]", table).forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
}

// Filter: its state is the address's fragment (#show:product=...&type=...), so that a view can be sent on.
const form = one("#filter");
const fields = [...form.elements].filter(element => element.name);
const initial = Object.fromEntries(fields.map(field => [field.name, field.value]));
function filter() {
  const value = Object.fromEntries(fields.map(field => [field.name, field.value]));
  const from = parseFloat(value.from), to = parseFloat(value.to);
  const narrowed = value.from !== initial.from || value.to !== initial.to;
  let shown = 0;
  for (const kind of all(".kind")) {
    const wanted = (!value.product || kind.dataset.product === value.product) && (!value.type || kind.dataset.type === value.type);
    for (const group of all(".group", kind)) {
      const source = !value.source || group.dataset.source === value.source;
      for (const card of all(".card", group)) {
        const w = parseFloat(card.dataset.w);
        // Real exemplars have no w and stay, to be compared with.
        const inRange = !narrowed || (isNaN(w) ? group.dataset.source === "real" : !(w < from) && !(w > to));
        const signal = !value.signal || (card.dataset.signals ?? "").split(",").includes(value.signal);
        card.hidden = !(wanted && source && inRange && signal);
      }
      const count = all(".card:not([hidden])", group).length;
      group.hidden = count === 0;
      shown += count;
    }
    kind.hidden = all(".group:not([hidden])", kind).length === 0;
  }
  one("#count").textContent = `${shown} of ${all(".kind .card").length} pictures`;
}
function readAddress() {
  const [, query] = location.hash.split("#show:");
  const wanted = new URLSearchParams(query ?? "");
  if (query !== undefined) for (const field of fields) field.value = wanted.get(field.name) ?? initial[field.name];
  filter();
  if (query !== undefined) one("#gallery").scrollIntoView();
}
form.addEventListener("submit", event => event.preventDefault());
form.addEventListener("input", event => {
  if (!event.target.name) return;
  const changed = fields.filter(field => field.value !== initial[field.name]).map(field => [field.name, field.value]);
  history.replaceState(null, "", changed.length ? "#show:" + new URLSearchParams(changed) : "#gallery");
  filter();
});
one("#outlines").addEventListener("change", event => document.body.classList.toggle("outlines", event.target.checked));
addEventListener("hashchange", () => { if (location.hash.startsWith("#show:")) readAddress(); });
readAddress();

// Provenance: every column of the row behind a picture.
const dialog = one("#provenance");
for (const button of all(".open")) {
  button.title = "Provenance";
  button.addEventListener("click", () => {
    const pairs = Object.entries(JSON.parse(button.dataset.row)).flatMap(([name, value]) => {
      const term = document.createElement("dt"), text = document.createElement("dd");
      term.textContent = name;
      text.textContent = value;
      return [term, text];
    });
    one("dl", dialog).replaceChildren(...pairs);
    const frame = one(".frame", button).cloneNode(true), picture = one("img", frame);
    // As large as the page has it; a small one is enlarged.
    one(".shown", dialog).style.setProperty("--natural", `${picture.getAttribute("width")}px`);
    one(".shown", dialog).replaceChildren(frame);
    dialog.showModal();
    dialog.scrollTop = 0;
  });
}
one("#close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });

// A printed page shows what is folded away on the screen.
addEventListener("beforeprint", () => { for (const part of all("details")) part.open = true; });
