// Reads and writes CSV (RFC 4180).

export function rowsOf(content) {
  const rows = [];
  let row = [], cell = "", quoted = false;
  const text = content.replace(/^\uFEFF/, "");
  for (let at = 0; at < text.length; at += 1) {
    const sign = text[at];
    if (quoted) {
      if (sign === '"' && text[at + 1] === '"') { cell += '"'; at += 1; }
      else if (sign === '"') quoted = false;
      else cell += sign;
    } else if (sign === '"' && cell === "") quoted = true;
    else if (sign === ",") { row.push(cell); cell = ""; }
    else if (sign === "\n" || sign === "\r") {
      if (sign === "\r" && text[at + 1] === "\n") at += 1;
      row.push(cell); rows.push(row); row = []; cell = "";
    } else cell += sign;
  }
  if (cell !== "" || row.length) { row.push(cell); rows.push(row); }
  return rows;
}

// The texts of the column `text`, or of the first one; blank ones are left out.
export function parse(content) {
  const [header, ...rows] = rowsOf(content);
  if (!header) return { texts: [], column: "" };
  const named = header.findIndex((name) => name.trim().toLowerCase() === "text");
  const column = Math.max(0, named);
  const texts = rows.map((row) => (row[column] ?? "").trim()).filter(Boolean).map((text) => text.slice(0, 5_000));
  return { texts, column: header[column].trim() };
}

// A cell that begins like a formula would be run by a spreadsheet.
const cell = (value) => {
  const text = String(value);
  return `"${(/^[=+\-@\t\r]/.test(text) ? `'${text}` : text).replaceAll('"', '""')}"`;
};

export function csvOf(rows) {
  const lines = rows.map((row) => [row.text, row.v1.sentiment, row.v1.confidence, row.v2.sentiment, row.v2.confidence].map(cell).join(","));
  return ["text,v1,v1_confidence,v2,v2_confidence", ...lines].join("\r\n");
}
