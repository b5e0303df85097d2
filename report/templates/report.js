"use strict";

// Sliders. The browser moves the range input by keyboard and mouse. Some browsers move it by touch
// only if the touch begins on its thumb, therefore a pointer that moves sets the value too.
for (const pair of document.querySelectorAll(".pair")) {
  const input = pair.querySelector("input");
  const show = () => {
    pair.style.setProperty("--at", input.value + "%");
    input.setAttribute("aria-valuetext", input.value + " % " + pair.querySelector("span").textContent);
  };
  const point = (event) => {
    if (!(event.buttons & 1)) return;
    const box = pair.getBoundingClientRect();
    input.value = (100 * (event.clientX - box.left)) / box.width;
    show();
  };
  input.addEventListener("input", show);
  input.addEventListener("pointermove", point);
  show();
}

// Sorting. The figures follow the order of the rows.
function compare(a, b) {
  if (a.dataset.value === undefined) {
    return a.textContent.localeCompare(b.textContent, "en", { numeric: true });
  }
  const [x, y] = [a, b].map((cell) => (cell.dataset.value === "NaN" ? -Infinity : Number(cell.dataset.value)));
  return x < y ? -1 : x > y ? 1 : 0;
}

for (const section of document.querySelectorAll("section:has(.sortable)")) {
  const body = section.querySelector("tbody");
  const headings = [...section.querySelectorAll("thead th")];
  const buttons = [...section.querySelectorAll("button[data-column]")];

  const mark = () => {
    for (const button of buttons.filter((b) => b.dataset.order)) {
      const order = headings[button.dataset.column].getAttribute("aria-sort");
      button.setAttribute("aria-pressed", order === button.dataset.order);
    }
  };

  const sort = (column, order) => {
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...body.rows].sort((a, b) => sign * compare(a.cells[column], b.cells[column]));
    body.append(...rows);
    const figures = rows.map((row) => document.getElementById(row.dataset.figure));
    document.getElementById("gallery").append(...figures.filter((figure) => figure));
    headings.forEach((th, i) => (i === column ? th.setAttribute("aria-sort", order) : th.removeAttribute("aria-sort")));
    mark();
  };

  for (const button of buttons) {
    button.addEventListener("click", () => {
      const column = Number(button.dataset.column);
      const ascending = headings[column].getAttribute("aria-sort") === "ascending";
      sort(column, button.dataset.order ?? (ascending ? "descending" : "ascending"));
    });
  }
  mark();
}

// A comparison: the convention of the scores per image, the two methods of the sliders, the texts.
const convention = document.getElementById("convention");
convention?.addEventListener("change", () => {
  document.querySelectorAll(".sheet").forEach((sheet, i) => (sheet.hidden = i !== convention.selectedIndex));
});

const sides = ["right", "left"].map((id) => document.getElementById(id));
for (const side of sides) {
  side?.addEventListener("change", () => {
    for (const pair of document.querySelectorAll(".pair")) {
      const urls = JSON.parse(pair.dataset.urls);
      pair.querySelectorAll("img").forEach((image, i) => (image.src = urls[sides[i].selectedIndex]));
      pair.querySelectorAll("span").forEach((span, i) => (span.textContent = sides[1 - i].value));
    }
  });
}

for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", async () => {
    const text = button.nextElementSibling;
    getSelection().selectAllChildren(text);
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "copied";
    } catch {
      button.textContent = "selected: press Ctrl+C";
    }
  });
}
