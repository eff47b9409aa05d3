// Scores a CSV file with both versions: the good rows, in a table and to save, and the bad ones with their reasons.

import { post } from "./api.js";
import { DELIMITERS, Refused, csvOf, readCsv } from "./csv_rows.js";
import { el, swatch, table } from "./dom.js";
import { plural, probability } from "./format.js";

const VERSIONS = ["v1", "v2"];
const RESULTS = [...VERSIONS.flatMap((version) => [`sentiment_${version}`, `confidence_${version}`]), "truncated"];
const BATCH = 50;
const MOST_ROWS = 1_000;
const MOST_SHOWN = 100;
const ENCODINGS = ["utf-8", "utf-16le", "cp1252", "iso-8859-2", "cp1251", "shift_jis", "gb18030", "big5", "euc-kr"];

// `choices` are the column, the delimiter and the encoding that a person chose; `again` scores with others.
export async function scoreFile(bytes, name, choices, answer, again, headers) {
  let file;
  try {
    file = readCsv(bytes, { ...choices, name });
    const taken = file.names.filter((known) => RESULTS.includes(known));
    if (taken.length) throw new Refused(`the input already has result columns: ${taken.join(", ")}`);
    if (!file.rows.length && !file.rejected.length) throw new Refused("it has a header and no rows");
  } catch (fault) {
    if (!(fault instanceof Refused)) throw fault;
    answer.replaceChildren(
      el("p", { class: "fault", role: "alert" }, `${name} is not scored: ${fault.message}.`),
      ...(fault.choice ? [chooser(fault, choices, again)] : []),
    );
    return;
  }
  const taken = file.rows.slice(0, MOST_ROWS);
  const progress = el("progress", { max: taken.length, value: 0, "aria-label": "Rows scored" });
  const note = el("p", { class: "dim", role: "status" });
  answer.replaceChildren(progress, note);
  const wait = (seconds) => {
    note.textContent = `RATE_LIMIT_BATCH is reached: goes on in ${seconds} s, after ${progress.value} of ${taken.length} rows.`;
    return new Promise((resume) => setTimeout(resume, 1_000 * seconds));
  };
  const scored = [], rejected = [...file.rejected];
  for (let from = 0; from < taken.length; from += BATCH) {
    const batch = taken.slice(from, from + BATCH);
    const results = await classified(batch.map((row) => row.values[file.column]), wait, headers);
    note.textContent = "";
    batch.forEach((row, index) => {
      const { reason, ...versions } = results[index];
      if (reason === undefined) scored.push({ ...row, ...versions });
      else rejected.push({ line: row.line, reason: `text: ${reason}`, raw: row.values[file.column] });
    });
    progress.value = from + batch.length;
  }
  rejected.sort((a, b) => a.line - b.line);
  answer.replaceChildren(...shown(file, scored, rejected, choices, again));
}

// For each text its predictions, or the reason why the service refuses it.
async function classified(texts, wait, headers) {
  try {
    const replies = await Promise.all(VERSIONS.map((version) => patient("predict/batch", { texts, version }, wait, headers)));
    return texts.map((_, index) => Object.fromEntries(VERSIONS.map((version, at) => [version, replies[at].predictions[index]])));
  } catch (problem) {
    if (![413, 422].includes(problem.status)) throw problem;
    const reasons = new Map();
    for (const { field, message } of problem.errors) {
      const index = /^texts\.(\d+)$/.exec(field)?.[1];
      if (index !== undefined) reasons.set(Number(index), message);
    }
    if (!reasons.size) {
      if (texts.length === 1) return [{ reason: problem.message }];
      // More than a request may hold.
      const half = texts.length >> 1;
      return [...await classified(texts.slice(0, half), wait, headers), ...await classified(texts.slice(half), wait, headers)];
    }
    const good = texts.filter((_, index) => !reasons.has(index));
    const results = good.length ? await classified(good, wait, headers) : [];
    return texts.map((_, index) => (reasons.has(index) ? { reason: reasons.get(index) } : results.shift()));
  }
}

// A file may hold more than the limit lets through in a minute.
async function patient(path, body, wait, headers) {
  for (;;) {
    try {
      return await post(path, body, headers);
    } catch (problem) {
      if (problem.status !== 429 || !problem.retryAfterSeconds) throw problem;
      await wait(problem.retryAfterSeconds);
    }
  }
}

function* shown(file, scored, rejected, choices, again) {
  const column = file.names[file.column];
  const differ = scored.filter((row) => row.v1.sentiment !== row.v2.sentiment).length;
  const more = file.rows.length > MOST_ROWS ? ` These are the first ${MOST_ROWS} of ${file.rows.length} rows: \`sentiment score\` scores all.` : "";
  const summary = el("p", {}, `${plural(scored.length, "text")} of column ${column}; the versions differ on ${differ}.${more} `);
  if (scored.length) summary.append(saveLink(file, scored));
  yield summary;
  yield chooser(file, { ...choices, column }, again);
  if (rejected.length) {
    yield el("p", { class: "fault", role: "alert" }, `${plural(rejected.length, "row was", "rows were")} not scored${partOf(rejected)}:`);
    yield table([
      { name: "Line", of: (row) => row.line, number: true },
      { name: "Reason", of: (row) => row.reason },
      { name: "Row", of: (row) => [...row.raw].slice(0, 200).join(""), class: "text" },
    ], rejected.slice(0, MOST_SHOWN), "Rows that were not scored");
  }
  if (!scored.length) return;
  if (scored.length > MOST_SHOWN) yield el("p", { class: "dim" }, `The table shows ${MOST_SHOWN} rows, the saved file has all ${scored.length}.`);
  yield table([
    { name: column, of: (row) => row.values[file.column], class: "text" },
    ...VERSIONS.map((version) => ({ name: version, of: (row) => [swatch(row[version].sentiment), `${row[version].sentiment} ${probability(row[version].confidence)}`] })),
  ], scored.slice(0, MOST_SHOWN), "Texts and what both versions say");
}

function partOf(rows) {
  return rows.length > MOST_SHOWN ? `, of which these are the first ${MOST_SHOWN}` : "";
}

function saveLink(file, scored) {
  const rows = scored.map((row) => [
    ...row.values,
    ...VERSIONS.flatMap((version) => [row[version].sentiment, row[version].confidence]),
    VERSIONS.some((version) => row[version].truncated),
  ]);
  const content = new Blob([csvOf([[...file.names, ...RESULTS], ...rows])], { type: "text/csv" });
  return el("a", { download: "sentiments.csv", href: URL.createObjectURL(content) }, "Save as CSV");
}

// How the file is read, to be read in another way.
function chooser({ names = [], delimiter, encoding }, choices, again) {
  const signs = Object.entries(DELIMITERS).map(([sign, label]) => [sign, label]);
  const selects = [
    select("Column", "column", names.map((known) => [known, known || "(no name)"]), choices.column),
    select("Delimiter", "delimiter", withChosen(signs, choices.delimiter ?? delimiter), choices.delimiter ?? delimiter),
    select("Encoding", "encoding", withChosen(ENCODINGS.map((known) => [known, known]), choices.encoding ?? encoding), choices.encoding ?? encoding),
  ];
  return el("div", { class: "row" }, selects);

  function select(label, key, options, chosen) {
    if (!options.length) return null;
    const prompt = options.some(([value]) => value === chosen) ? [] : [el("option", { value: "" }, "choose")];
    const element = el("select", { "aria-label": label },
      prompt, options.map(([value, shownAs]) => el("option", { value, selected: value === chosen }, shownAs)));
    element.addEventListener("change", () => again({ ...choices, [key]: element.value }));
    return el("label", {}, `${label} `, element);
  }
}

function withChosen(options, chosen) {
  return chosen === undefined || options.some(([value]) => value === chosen) ? options : [[chosen, chosen], ...options];
}
