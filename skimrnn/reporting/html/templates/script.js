"use strict";
{
  const data = JSON.parse(document.getElementById("data").textContent);
  const say = (text) => { document.getElementById("status").textContent = text; };

  function element(name, text = "", attributes = {}) {
    const made = document.createElement(name);
    made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  // --- One dataset or all --------------------------------------------------------------------------------------------

  const filter = document.getElementById("dataset");
  filter.closest("p").hidden = false;
  filter.addEventListener("change", () => {
    for (const part of document.querySelectorAll("[data-dataset]")) {
      part.hidden = filter.value !== "" && part.dataset.dataset !== filter.value;
    }
    for (const section of document.querySelectorAll("section:not([data-dataset])")) {
      const parts = [...section.querySelectorAll("[data-dataset]")];
      section.hidden = parts.length > 0 && parts.every((part) => part.hidden);
    }
    document.querySelectorAll("table.sortable").forEach(enterAtFirst);
    say(`Showing ${filter.selectedOptions[0].textContent.trim()}.`);
  });

  // --- Sorting -------------------------------------------------------------------------------------------------------

  // A heading sorts one way, then the other, then gives the first order back. Cells without a number come last.
  function makeSortable(table) {
    const body = table.tBodies[0], first = [...body.rows];
    const headings = [...table.querySelectorAll("[data-sort]")];
    for (const heading of headings) {
      const isText = heading.dataset.sort === "text", column = Number(heading.dataset.column);
      const turns = isText ? ["ascending", "descending", "none"] : ["descending", "ascending", "none"];
      const button = element("button", heading.textContent, { type: "button", "aria-label": heading.dataset.name });
      heading.replaceChildren(button);
      heading.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const turn = turns[(turns.indexOf(heading.getAttribute("aria-sort")) + 1) % turns.length];
        headings.forEach((other) => other.setAttribute("aria-sort", other === heading ? turn : "none"));
        body.append(...sorted(first, column, isText, turn));
        say(turn === "none" ? "In the first order." : `Sorted by ${heading.dataset.name}, ${turn}.`);
      });
    }
  }

  function sorted(rows, column, isText, turn) {
    if (turn === "none") return rows;
    const sign = turn === "ascending" ? 1 : -1;
    const key = (row) => isText ? row.cells[column].textContent.trim() : Number(row.cells[column].dataset.value ?? NaN);
    return [...rows].sort((a, b) => {
      const left = key(a), right = key(b);
      if (isText) {
        const numbers = [Number(left || NaN), Number(right || NaN)];  // 0.5 lies above 0.48, which a text does not know.
        if (!numbers.some(Number.isNaN)) return sign * (numbers[0] - numbers[1]);
        return sign * left.localeCompare(right, "en", { numeric: true });
      }
      return (Number.isNaN(left) - Number.isNaN(right)) || sign * (left - right) || 0;
    });
  }

  document.querySelectorAll("table.sortable").forEach(makeSortable);

  // --- Where a number comes from -------------------------------------------------------------------------------------

  const dialog = document.getElementById("origin");

  function showOrigin([title, number, note, parts]) {
    dialog.querySelector("h2").textContent = title;
    dialog.querySelector(".number").textContent = number;
    dialog.querySelector(".note").textContent = data.notes[note];
    dialog.querySelector(".wide").replaceChildren(...(parts.length ? sourceTables(parts) : []));
    dialog.showModal();
  }

  // What all parts say, then, of a few parts a column each, or of many a row each, what differs.
  function sourceTables(parts) {
    const labels = parts.map(([label]) => label);
    const facts = parts.map(([, value, source]) => ({ ...(value ? { Value: value } : {}), ...data.sources[source] }));
    const names = [...new Set(facts.flatMap(Object.keys))];
    const differ = names.filter((name) => facts.some((fact) => fact[name] !== facts[0][name]));
    const shared = element("table"), own = element("table");
    for (const name of names.filter((name) => !differ.includes(name))) addRow(shared, name, [facts[0][name]]);
    if (parts.length > 3) {
      addHead(own, differ);
      labels.forEach((label, index) => addRow(own, label, differ.map((name) => facts[index][name] ?? "")));
    } else {
      addHead(own, labels);
      differ.forEach((name) => addRow(own, name, facts.map((fact) => fact[name] ?? "")));
    }
    return parts.length > 1 ? [own, shared] : [shared];
  }

  function addHead(table, names) {
    table.createTHead().insertRow().append(element("td"), ...names.map((name) => element("th", name, { scope: "col" })));
  }

  function addRow(table, name, values) {
    const row = (table.tBodies[0] ?? table.createTBody()).insertRow();
    row.append(element("th", name, { scope: "row" }), ...values.map((value) => element("td", value)));
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest("[data-origin]");
    if (link) {
      event.preventDefault();
      showOrigin(data.origins[link.dataset.origin]);
    } else if (event.target === dialog) {
      dialog.close();
    }
  });

  for (const link of document.querySelectorAll("[data-origin]")) {
    link.setAttribute("role", "button");
    link.setAttribute("aria-haspopup", "dialog");
    link.addEventListener("keydown", (event) => {
      if (event.key === " ") {
        event.preventDefault();
        link.click();
      }
    });
  }

  // --- Arrow keys in a table of numbers: one of them takes part in the order of Tab ----------------------------------

  function enterAtFirst(table) {
    const links = [...table.querySelectorAll("[data-origin]")], first = links.find((link) => !link.closest("tr").hidden);
    for (const link of links) link.tabIndex = link === first ? 0 : -1;
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    enterAtFirst(table);
    table.addEventListener("keydown", (event) => {
      const link = event.target.closest("[data-origin]");
      const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
      const next = link && step && neighbour(link.closest("td"), step);
      if (next) {
        event.preventDefault();
        link.tabIndex = -1;
        next.tabIndex = 0;
        next.focus();
      }
    });
  }

  // The nearest number in one direction, over cells without one and rows that are not shown.
  function neighbour(cell, [down, right]) {
    for (let row = cell.parentElement, column = cell.cellIndex; ;) {
      row = down > 0 ? row.nextElementSibling : down < 0 ? row.previousElementSibling : row;
      column += right;
      if (!row || !row.cells[column]) return null;
      const link = row.cells[column].querySelector("[data-origin]");
      if (link && !row.hidden) return link;
    }
  }

  // --- Coloured texts ------------------------------------------------------------------------------------------------

  // Of the decisions "0110" the path over the tokens that are read, as in the page's first state.
  const stripPath = (read) => [...read.matchAll(/1+/g)].map(({ index, 0: run }) =>
    `M${index} 0h${run.length}v1h-${run.length}z`).join("");

  function showReading(article, place) {
    const point = data.texts[article.dataset.text].points[place];
    const lstm = Number(article.querySelector(".strips input:checked")?.value ?? 0);
    const words = [...article.querySelectorAll(".words .word")];
    words.forEach((word, index) => {
      const p = parseInt(point.p_read[lstm].slice(2 * index, 2 * index + 2), 16) / 255;
      word.classList.toggle("read", point.read[lstm][index] === "1");
      word.dataset.p = p.toFixed(2);
      word.style.setProperty("--p", p);
    });
    const read = words.filter((word) => word.classList.contains("read"));
    article.querySelector(".said").textContent = point.answer;
    article.querySelector(".count").textContent = `${read.length} of ${words.length}`;
    article.querySelector(".only-read").textContent = read.map((word) => word.textContent).join(" ");
    article.querySelectorAll(".strips label").forEach((label, index) => {
      const decisions = point.read[index];
      label.querySelector("path").setAttribute("d", stripPath(decisions));
      label.querySelector(".share").textContent =
        `${Math.round(100 * decisions.replaceAll("0", "").length / decisions.length)} %`;
    });
  }

  for (const library of document.querySelectorAll(".library")) {
    const threshold = library.querySelector(".threshold"), model = library.querySelector(".model");
    const readings = [...library.querySelectorAll(".reading")];
    const show = () => {
      const reading = readings[model.value], articles = reading.querySelectorAll("article");
      const value = data.texts[articles[0].dataset.text].points[threshold.value].threshold;
      readings.forEach((other) => { other.hidden = other !== reading; });
      articles.forEach((article) => showReading(article, threshold.value));
      library.querySelector(".value").textContent = value;
      threshold.setAttribute("aria-valuetext", value);
    };
    library.querySelector(".controls").hidden = false;
    library.querySelectorAll(".model-name").forEach((name) => name.classList.add("print"));
    library.addEventListener("input", (event) => {
      if (event.target.matches(".shade")) {
        library.querySelectorAll(".words").forEach((words) => words.classList.toggle("shaded", event.target.checked));
      } else {
        show();
      }
    });
    show();
  }

  for (const text of document.querySelectorAll(".words")) {
    const words = [...text.querySelectorAll(".word")];
    const turnTo = (index) => {
      words.forEach((word, place) => word.classList.toggle("current", place === index));
      if (index >= 0) {
        const word = words[index];
        say(`${word.textContent}: p(read) ${word.dataset.p}, ${word.classList.contains("read") ? "read" : "skimmed"}`);
      }
    };
    text.addEventListener("blur", () => turnTo(-1));
    text.addEventListener("keydown", (event) => {
      const current = words.findIndex((word) => word.classList.contains("current")), last = words.length - 1;
      const next = {
        ArrowRight: Math.min(current + 1, last), ArrowLeft: Math.max(current - 1, 0), Home: 0, End: last,
      }[event.key];
      if (next !== undefined) {
        event.preventDefault();
        turnTo(next);
      }
    });
  }
}
