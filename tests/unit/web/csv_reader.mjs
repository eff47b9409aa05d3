// Reads the files of a JSON document on stdin with the dashboard's reader, and prints their rows.
import { readFileSync } from "node:fs";

const { readCsv } = await import(process.argv[2]);
const files = JSON.parse(readFileSync(0, "utf-8"));
const read = files.map(({ content, ...options }) => {
  try {
    const { names, column, rows, rejected } = readCsv(new Uint8Array(Buffer.from(content, "base64")), options);
    return { names, column, rows: rows.map((row) => row.values), rejected: rejected.map(({ line, reason, raw }) => [line, reason, raw]) };
  } catch (fault) {
    return { refused: fault.message, choice: fault.choice ?? null };
  }
});
process.stdout.write(JSON.stringify(read));
