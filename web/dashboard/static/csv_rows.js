// Reads CSV files by the rules of datafiles/ (tests/unit/datafiles/csv_files.py has the same right values for both), and writes CSV.

const SAMPLE_BYTES = 1 << 20;
const FIELD_LIMIT = 131_072;
const MAX_LINE_BYTES = 1 << 20;
// In the order of preference, if the header allows several.
export const DELIMITERS = { ",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars" };
const NAMED = { tab: "\t", "\\t": "\t", comma: ",", semicolon: ";", pipe: "|", space: " " };
const OTHERS = [
  [[0x50, 0x41, 0x52, 0x31], "a Parquet file"],
  [[0x50, 0x4b, 3, 4], "a ZIP archive or a spreadsheet"],
  [[0xd0, 0xcf, 0x11, 0xe0], "a spreadsheet of Excel"],
  [[0x42, 0x5a, 0x68], "compressed with bzip2"],
  [[0xfd, 0x37, 0x7a, 0x58, 0x5a], "compressed with xz"],
  [[0x25, 0x50, 0x44, 0x46], "a PDF document"],
  [[0x41, 0x52, 0x52, 0x4f, 0x57, 0x31, 0, 0], "an Arrow file"],
  [[0x4f, 0x62, 0x6a, 1], "an Avro file"],
  [[...new TextEncoder().encode("SQLite format 3\0")], "an SQLite database"],
  // `sentiment score` unpacks these.
  [[0x1f, 0x8b], "compressed with gzip"],
  [[0x28, 0xb5, 0x2f, 0xfd], "compressed with zstd"],
];
// Stands for bytes that are not in the encoding; no encoding gives it.
const MARK = "\udc80";
// Bytes of cp1252 that have no character; a browser makes these control characters of them.
const NOT_CP1252 = /[\x81\x8d\x8f\x90\x9d]/g;
// The white space that Python strips.
const SPACE = "[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]+";
const SPACE_AROUND = new RegExp(`^${SPACE}|${SPACE}$`, "g");

// A file that cannot be read: `choice` is what would help to name, `names` are the columns that were found.
export class Refused extends Error {
  constructor(message, choice = null, names = []) {
    super(message);
    this.choice = choice;
    this.names = names;
  }
}

// A row that cannot be read.
class Unusable extends Error {}

// The rows of a file as { names, column, rows: [{ line, values }], rejected: [{ line, reason, raw }], delimiter, encoding }.
export function readCsv(bytes, { column = "text", encoding = "", delimiter = "", name = "" } = {}) {
  for (const [magic, kind] of OTHERS) {
    if (magic.every((byte, index) => bytes[index] === byte)) throw new Refused(`it is ${kind}`);
  }
  if (isTar(bytes)) throw new Refused("it is a tar archive");
  const found = encoding ? named(encoding) : detected(bytes);
  const text = decoded(bytes, found);
  const reader = new Reader(text, found);
  const sep = /^"?sep=(.)"?\r*(?:\n|\r|$)/i.exec(text.slice(0, 20));
  if (sep) reader.next();
  reader.delimiter = delimiter ? checked(delimiter) : sep ? sep[1] : reader.detect([column], name.endsWith(".tsv"));
  const start = { at: reader.at, line: reader.line };
  let names = header(reader);
  if (hasBlanks(names, text.slice(0, SAMPLE_BYTES), reader.delimiter)) {
    Object.assign(reader, start, { skipsBlanks: true });
    names = header(reader);
  }
  const index = findColumn(column, names);
  const repeated = names.find((name, at) => names.indexOf(name) !== at);
  if (repeated !== undefined) {
    throw new Refused(`${several(repeated, names.flatMap((name, at) => (name === repeated ? [at] : [])))}; rename them`, null, names);
  }
  const rows = [], rejected = [];
  for (;;) {
    const line = reader.line + 1;
    try {
      const values = reader.row();
      if (values === null) break;
      if (!values.length) continue;
      if (values.length !== names.length) throw new Unusable(`${values.length} fields; the header has ${names.length}`);
      rows.push({ line, values });
    } catch (fault) {
      if (!(fault instanceof Unusable)) throw fault;
      rejected.push({ line, reason: fault.message, raw: reader.raw.slice(0, 1_000) });
    }
  }
  return { names, column: index, rows, rejected, delimiter: reader.delimiter, encoding: found };
}

function header(reader) {
  let names;
  try {
    names = reader.row();
  } catch (fault) {
    if (!(fault instanceof Unusable)) throw fault;
    throw new Refused(`the header cannot be read: ${fault.message}`, "delimiter");
  }
  if (!names?.length) throw new Refused("a CSV file must begin with the names of its columns");
  if (names.some((name) => name.includes("\0"))) throw new Refused("its header has NUL characters, so it is no text file");
  if (names[0].replace(SPACE_AROUND, "").startsWith("{")) throw new Refused("it has JSON lines, not CSV");
  return names;
}

// Whether a blank follows each delimiter, also before quotes, which would be text otherwise.
function hasBlanks([, ...names], sample, delimiter) {
  if (!names.length || !names.every((name) => name.startsWith(" "))) return false;
  // A search would go from each blank of a run to its end.
  if (delimiter === " ") return sample.includes('  "');
  const sign = delimiter.replace(/[$^*+.?()[\]{}|\\/]/, "\\$&");
  return new RegExp(`${sign} +"`, "u").test(sample);
}

function isTar(bytes) {
  return bytes.subarray(0, 257).includes(0) && [..."ustar"].every((sign, index) => bytes[257 + index] === sign.charCodeAt(0));
}

// The index of the column `name`, or else of the only one that differs in case or spaces.
export function findColumn(name, names) {
  const bare = (value) => value.replace(SPACE_AROUND, "").toLowerCase();
  const where = (same) => names.flatMap((known, index) => (same(known) ? [index] : []));
  const exact = where((known) => known === name);
  const found = exact.length ? exact : where((known) => bare(known) === bare(name));
  const known = names.some(Boolean) ? `the columns are: ${names.join(", ")}` : "no column has a name";
  if (!found.length) throw new Refused(`no column ${name}; ${known}`, "column", names);
  if (found.length > 1) throw new Refused(several(name, found), "column", names);
  return found[0];
}

function several(name, found) {
  return `columns ${found.map((index) => index + 1).join(" and ")} have ${name ? `the same name: ${name}` : "no name"}`;
}

function checked(delimiter) {
  const sign = NAMED[delimiter.toLowerCase()] ?? delimiter;
  if ([...sign].length !== 1 || '"\r\n\0'.includes(sign)) throw new Refused("the delimiter must be a character, or tab", "delimiter");
  return sign;
}

// Reads rows as Python's csv does in its strict mode. A row that cannot be read is its first line alone, because an open
// quote may be its fault, and the lines after it rows of their own.
class Reader {
  constructor(text, encoding) {
    this.text = text;
    this.encoding = encoding;
    this.at = 0;
    this.line = 0;
    this.record = [];
    this.skipsBlanks = false;
    const end = /\r*\n|\r/.exec(text.slice(0, SAMPLE_BYTES).replace(/"[^"]*"/g, ""));
    this.lineEnd = end?.[0] === "\r" ? "\r" : "\n";
  }

  // The next line with its line end; empty at the end.
  next() {
    const end = this.text.indexOf(this.lineEnd, this.at);
    const line = this.text.slice(this.at, end < 0 ? undefined : end + 1);
    this.at += line.length;
    if (line) this.line += 1;
    return line;
  }

  // The lines of the last row.
  get raw() {
    return this.record.join("").replace(/[\r\n]+$/, "").toWellFormed();
  }

  row() {
    const { at, line } = this;
    let afterFirst = null;
    const record = this.record = [];
    let bytes = 0;
    const nextLine = () => {
      const read = this.next();
      afterFirst ??= { at: this.at, line: this.line };
      record.push(read);
      bytes += read.length * 3 > MAX_LINE_BYTES ? new TextEncoder().encode(read).length : read.length;
      if (bytes > MAX_LINE_BYTES) throw new Unusable(`the ${record.length > 1 ? "row" : "line"} is longer than 1 MiB`);
      return read;
    };
    try {
      const values = this.fields(nextLine);
      if (values?.some((value) => !value.isWellFormed())) throw new Foreign(`not in ${this.encoding.toUpperCase().replace(/(LE|BE)$/, "")}`);
      return values;
    } catch (fault) {
      if (fault instanceof Unusable && !(fault instanceof Foreign)) {
        ({ at: this.at, line: this.line } = afterFirst ?? { at, line });
        // The lines after it are rows of their own.
        record.length = Math.min(record.length, 1);
      }
      throw fault;
    }
  }

  fields(nextLine) {
    const first = nextLine();
    if (!first) return null;
    const values = [];
    let state = "start", field = "";
    const add = (sign) => {
      field += sign;
      if (field.length > FIELD_LIMIT && [...field].length > FIELD_LIMIT) throw new Unusable("invalid CSV: field larger than field limit (131072)");
    };
    const close = () => { values.push(field); field = ""; };
    for (let line = first; ; line = nextLine()) {
      if (!line) throw new Unusable("invalid CSV: unexpected end of data");
      if (state === "quoted" && !line.includes('"')) {
        add(line);
        continue;
      }
      for (const sign of line) {
        if (state === "ended") {
          if (sign !== "\n" && sign !== "\r") throw new Unusable("invalid CSV: new-line character seen in unquoted field");
        } else if (state === "quoted") {
          if (sign === '"') state = "quote in quoted";
          else add(sign);
        } else if (state === "quote in quoted" && sign === '"') {
          add(sign);
          state = "quoted";
        } else if (sign === "\n" || sign === "\r") {
          if (state !== "start" || values.length) close();
          state = "ended";
        } else if (sign === this.delimiter) {
          close();
          state = "start";
        } else if (this.skipsBlanks && sign === " " && (state === "start" || state === "blank")) {
          state = "blank";
        } else if (state === "quote in quoted") {
          throw new Unusable(`invalid CSV: '${this.delimiter}' expected after '"'`);
        } else if ((state === "start" || state === "blank") && sign === '"') {
          state = "quoted";
        } else {
          add(sign);
          state = "unquoted";
        }
      }
      if (state === "ended") return values;
      if (state !== "quoted") {
        // The last line of a file without a line end.
        close();
        return values;
      }
    }
  }

  // The delimiter with which the header has the wanted columns, or else the most columns.
  detect(wanted, prefersTabs) {
    const order = Object.keys(DELIMITERS).sort((a, b) => prefersTabs * ((b === "\t") - (a === "\t")));
    const headers = order.map((delimiter) => {
      const trial = new Reader(this.text, this.encoding);
      trial.delimiter = delimiter;
      try {
        return { delimiter, names: trial.fields(() => trial.next()) ?? [] };
      } catch {
        return { delimiter, names: [] };
      }
    });
    const fits = ({ names }) => {
      try {
        return wanted.every((name) => findColumn(name, names) >= 0);
      } catch {
        return false;
      }
    };
    const most = headers.reduce((best, next) => (next.names.length > Math.max(1, best.names.length) ? next : best));
    return (headers.find(fits) ?? most).delimiter;
  }
}

// A row with bytes that are not in the encoding: its lines belong together.
class Foreign extends Unusable {}

// Of the encodings that browsers read; the service reads none with escape sequences.
const ESCAPES = /^(cs)?iso-?2022/;

function named(encoding) {
  const name = encoding.trim().toLowerCase();
  const alias = /^(cp|windows-?)125\d$/.test(name) ? `windows-${name.slice(-4)}` : name.replaceAll("_", "-");
  try {
    if (ESCAPES.test(alias)) throw new RangeError(alias);
    return display(new TextDecoder(alias.replace(/^utf-?8.*/, "utf-8").replace(/^(utf-16)-(le|be)$/, "$1$2")).encoding);
  } catch {
    throw new Refused(`no encoding that is read is named ${encoding}; convert the file to UTF-8`, "encoding");
  }
}

// As Python names them.
const display = (encoding) => encoding.replace(/^windows-/, "cp");

// UTF-8 or, by a byte order mark or zero bytes, UTF-16, as RFC 4627 finds them.
function detected(bytes) {
  const [a, b, c, d] = bytes;
  if (a === 0xef && b === 0xbb && c === 0xbf) return "utf-8";
  const isUtf32 = (!a && !b) || (a && !b && !c && !d) || (a === 0xff && b === 0xfe && !c && !d);
  if (isUtf32 && bytes.length > 3) throw new Refused("it is in UTF-32, which is not read; convert it to UTF-8");
  if (a === 0xff && b === 0xfe) return "utf-16le";
  if (a === 0xfe && b === 0xff) return "utf-16be";
  if (a === 0 && b) return "utf-16be";
  if (a && b === 0 && (c || d)) return "utf-16le";
  let right = 0, wrong = null, wrongs = 0, number = 0;
  const sample = bytes.subarray(0, SAMPLE_BYTES);
  const lines = [...byteLines(sample)];
  if (sample.length === SAMPLE_BYTES) lines.pop();
  for (const line of lines) {
    number += 1;
    if (!line.some((byte) => byte > 0x7f)) continue;
    if (fatal(line, "utf-8") !== null) right += 1;
    else {
      wrongs += 1;
      wrong ??= { number, byte: firstWrong(line) };
    }
  }
  if (wrongs > right) {
    throw new Refused(`it is not in UTF-8: line ${wrong.number} has the byte 0x${wrong.byte.toString(16).toUpperCase().padStart(2, "0")}. `
      + "Name its encoding, such as cp1252 for Windows in Western Europe; with utf-8, such rows are rejected", "encoding");
  }
  return "utf-8";
}

function decoded(bytes, encoding) {
  if (encoding.startsWith("utf-16")) return utf16(bytes, encoding === "utf-16le");
  const label = encoding.replace(/^cp/, "windows-");
  const parts = [];
  for (const line of byteLines(bytes)) {
    const text = fatal(line, label) ?? new TextDecoder(label, { ignoreBOM: true }).decode(line).replaceAll("\uFFFD", MARK);
    parts.push(encoding === "cp1252" ? text.replace(NOT_CP1252, MARK) : text);
  }
  return parts.join("").replace(/^\uFEFF+/, "");
}

// Half a character stays what it is, so that the reader of rows finds it.
function utf16(bytes, isLittleEndian) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const parts = [];
  for (let at = 0; at + 1 < bytes.length; at += 2) parts.push(String.fromCharCode(view.getUint16(at, isLittleEndian)));
  if (bytes.length % 2) parts.push(MARK);
  return parts.join("").replace(/^\uFEFF+/, "");
}

// The lines with their ends: LF, CR or CR LF. No encoding but UTF-16 has these bytes in other characters.
function* byteLines(bytes) {
  let from = 0;
  for (let at = 0; at < bytes.length; at += 1) {
    if (bytes[at] === 0x0a || (bytes[at] === 0x0d && bytes[at + 1] !== 0x0a)) {
      yield bytes.subarray(from, at + 1);
      from = at + 1;
    }
  }
  if (from < bytes.length) yield bytes.subarray(from);
}

function fatal(bytes, label) {
  try {
    return new TextDecoder(label, { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return null;
  }
}

// The first byte that does not continue valid UTF-8.
function firstWrong(line) {
  let valid = 0;
  for (let end = 1; end <= line.length; end += 1) {
    if (fatal(line.subarray(0, end), "utf-8") !== null) valid = end;
  }
  return line[valid];
}

// A cell that begins like a formula (OWASP's list) would be run by a spreadsheet; a number is none.
// web/read_api/csv_rows.py has the same rule.
const cell = (value) => {
  const text = String(value);
  const isFormula = /^[=+\-@\t\r\n\uFF1D\uFF0B\uFF0D\uFF20]/.test(text) && !/^[+-]?\d+([.,]\d+)?([eE][+-]?\d+)?$/.test(text);
  return `"${(isFormula ? `'${text}` : text).replaceAll('"', '""')}"`;
};

export function csvOf(rows) {
  return rows.map((row) => row.map(cell).join(",")).join("\r\n");
}
