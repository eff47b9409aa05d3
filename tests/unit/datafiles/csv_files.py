"""CSV files and their right values, for the reader in Python and the one of the dashboard."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from datafiles.chunks import InvalidInput, Position
from datafiles.formats import Format, Input, open_source


@dataclass(frozen=True, slots=True)
class Rows:
    """The right reading: names, rows, and line and reason (to a colon) of each rejected row.

    `column` is the index of the texts.
    """

    names: list[str]
    rows: list[list[str]]
    rejected: tuple[tuple[int, str], ...] = ()
    column: int = 0


@dataclass(frozen=True, slots=True)
class Refused:
    """The file is refused with a sentence that contains this."""

    sentence: str


@dataclass(frozen=True, slots=True)
class CsvFile:
    content: bytes
    right: Rows | Refused
    column: str = "text"
    encoding: str | None = None
    delimiter: str | None = None


def read(file: CsvFile, path: Path) -> Rows | Refused:
    """Read a file as scoring and held-out texts are read; `path` is where it is written."""
    path.write_bytes(file.content)
    source = Input(path, Format.csv, file.encoding, file.delimiter)
    try:
        opened = open_source(source, file.column, None, check=str)
    except InvalidInput as error:
        return Refused(str(error))
    chunks = list(opened.chunks(Position(), None))
    rows = [[str(value) for value in row] for chunk in chunks for row in chunk.columns]
    rejected = [(row.line, _kind(row.reason)) for chunk in chunks for row in chunk.rejected]
    column = list(opened.names).index(opened.column)
    assert [text for chunk in chunks for text in chunk.texts] == [row[column] for row in rows]
    return Rows(list(opened.names), rows, tuple(rejected), column)


def _kind(reason: str) -> str:
    return reason.partition(":")[0]


def texts(*values: str, rejected: tuple[tuple[int, str], ...] = ()) -> Rows:
    return Rows(["text"], [[value] for value in values], rejected)


def pairs(*rows: tuple[str, str], rejected: tuple[tuple[int, str], ...] = ()) -> Rows:
    return Rows(["id", "text"], [list(row) for row in rows], rejected, column=1)


GERMAN = "id;text\r\n1;Größe passt, schön\r\n2;Café €\r\n"
GERMAN_ROWS = pairs(("1", "Größe passt, schön"), ("2", "Café €"))
TWO = pairs(("1", "good"), ("2", "bad"))
MANY = b"".join(b"%d,row %d\n" % (n, n) for n in range(2, 20_002))

CSV_FILES = {
    # Line ends.
    "line feeds": CsvFile(b"id,text\n1,good\n2,bad\n", TWO),
    "CR LF": CsvFile(b"id,text\r\n1,good\r\n2,bad\r\n", TWO),
    "lone CR": CsvFile(b"id,text\r1,good\r2,bad\r", TWO),
    "lone CR, quoted LF and CR": CsvFile(
        b'text\r"a\nb"\r"c\rd"\r"e\r\nf"', texts("a\nb", "c\rd", "e\r\nf")
    ),
    "CR CR LF": CsvFile(b"id,text\r\r\n1,good\r\r\n2,bad\r\r\n", TWO),
    "LF and CR LF mixed": CsvFile(b"id,text\n1,good\r\n2,bad", TWO),
    "quoted CR, LF and CR LF": CsvFile(
        b'text\n"a\rb"\n"c\nd"\n"e\r\nf"\n', texts("a\rb", "c\nd", "e\r\nf")
    ),
    "unquoted CR in lines with LF": CsvFile(
        b"text\ngood\na\rb\nfine\n", texts("good", "fine", rejected=((3, "invalid CSV"),))
    ),
    "unquoted LF in lines with CR": CsvFile(
        b"text\rgood\ra\nb\rfine", texts("good", "fine", rejected=((3, "invalid CSV"),))
    ),
    "no line end at the end": CsvFile(b"id,text\n1,good\n2,bad", TWO),
    "blank lines": CsvFile(b"id,text\n\n1,good\n\r\n2,bad\n\n", TWO),
    "line end in a header": CsvFile(
        b'"the\nid",text\n1,good\n', Rows(["the\nid", "text"], [["1", "good"]], column=1)
    ),
    "separators of other systems are text": CsvFile(
        "text\na\u2028b\nc\u0085d\ne\x0bf\x0cg\n".encode(),
        texts("a\u2028b", "c\x85d", "e\x0bf\x0cg"),
    ),
    # Delimiters.
    "semicolons": CsvFile(
        b"id;text\n1;good, very\n2;bad\n", pairs(("1", "good, very"), ("2", "bad"))
    ),
    "tabs": CsvFile(b"id\ttext\n1\tgood, very\n", pairs(("1", "good, very"))),
    "vertical bars": CsvFile(b"id|text\n1|good, very; so\n", pairs(("1", "good, very; so"))),
    "semicolons and decimal commas": CsvFile(
        b"text;price\ngood;1,5\n", Rows(["text", "price"], [["good", "1,5"]])
    ),
    "commas in a header of semicolons": CsvFile(
        b"a,b;text\n1;good\n", Rows(["a,b", "text"], [["1", "good"]], column=1)
    ),
    "a column alone": CsvFile(b"text\ngood; very\nbad\tso\n", texts("good; very", "bad\tso")),
    "a comma in a column alone": CsvFile(
        b"text\ngood\nbad, so\n", texts("good", rejected=((3, "2 fields; the header has 1"),))
    ),
    "sep=": CsvFile(b"sep=;\r\nid;text\r\n1;good\r\n2;bad\r\n", TWO),
    "quoted SEP= of a tab": CsvFile(b'"SEP=\t"\nid\ttext\n1\tgood\n2\tbad\n', TWO),
    "sep= of a sign that is not found otherwise": CsvFile(b"sep=^\nid^text\n1^good\n2^bad", TWO),
    "lines count from the line sep=": CsvFile(
        b"sep=;\nid;text\n1\n", pairs(rejected=((3, "1 fields; the header has 2"),))
    ),
    "named delimiter": CsvFile(b"id^text\n1^good\n2^bad\n", TWO, delimiter="^"),
    "delimiter named tab": CsvFile(b"id\ttext\n1\tgood\n2\tbad\n", TWO, delimiter="tab"),
    "a wrong delimiter": CsvFile(
        b"id;text\n1;good\n", Refused("no column text; the columns are: id;text"), delimiter=","
    ),
    "a delimiter of two signs": CsvFile(
        b"id::text\n", Refused("the delimiter must be a character"), delimiter="::"
    ),
    # Encodings.
    "UTF-8": CsvFile(GERMAN.encode(), GERMAN_ROWS),
    "UTF-8 with a byte order mark": CsvFile(GERMAN.encode("utf-8-sig"), GERMAN_ROWS),
    "two byte order marks": CsvFile('\ufeff\ufeff"text"\n"a, b"\n'.encode(), texts("a, b")),
    "two byte order marks in UTF-16": CsvFile(
        "\ufeff\ufefftext\ngood\n".encode("utf-16-le"), texts("good")
    ),
    "two byte order marks before sep=": CsvFile(
        "\ufeff\ufeffsep=;\nid;text\n1;good\n2;bad".encode(), TWO
    ),
    "a byte order mark in a row is text": CsvFile(
        "text\n\ufeffgood\n".encode(), texts("\ufeffgood")
    ),
    "a byte order mark before a quote": CsvFile('\ufeff"text"\n"a, b"\n'.encode(), texts("a, b")),
    "UTF-16 with a byte order mark": CsvFile(GERMAN.encode("utf-16"), GERMAN_ROWS),
    "UTF-16 big-endian with a byte order mark": CsvFile(
        b"\xfe\xff" + GERMAN.encode("utf-16-be"), GERMAN_ROWS
    ),
    "UTF-16 without a byte order mark": CsvFile(GERMAN.encode("utf-16-le"), GERMAN_ROWS),
    "UTF-16 big-endian without a byte order mark": CsvFile(GERMAN.encode("utf-16-be"), GERMAN_ROWS),
    "Unicode text of Excel": CsvFile(
        "id\ttext\r\n1\t很好 👍\r\n".encode("utf-16"), pairs(("1", "很好 👍"))
    ),
    "UTF-16 with lone CR": CsvFile("id,text\r1,good\r2,bad".encode("utf-16"), TWO),
    "UTF-16 with half a character": CsvFile(
        b"\xff\xfe"
        + "text\ngood\n".encode("utf-16-le")
        + b"\x00\xd8\n\x00"
        + "fine\n".encode("utf-16-le"),
        texts("good", "fine", rejected=((3, "not in UTF-16"),)),
    ),
    "UTF-16 cut in a character": CsvFile(
        "text\ngood\nbad".encode("utf-16") + b"x",
        texts("good", rejected=((3, "not in UTF-16"),)),
    ),
    "UTF-32": CsvFile("text\n".encode("utf-32"), Refused("it is in UTF-32")),
    "UTF-32 without a byte order mark": CsvFile(
        "text\n".encode("utf-32-be"), Refused("it is in UTF-32")
    ),
    "cp1252": CsvFile(GERMAN.encode("cp1252"), Refused("not in UTF-8: line 2 has the byte 0xF6")),
    "cp1252, named": CsvFile(GERMAN.encode("cp1252"), GERMAN_ROWS, encoding="cp1252"),
    "windows-1252, named": CsvFile(GERMAN.encode("cp1252"), GERMAN_ROWS, encoding="windows-1252"),
    "a byte that cp1252 lacks": CsvFile(
        b"text\n\xe9\n\x81\n", texts("é", rejected=((3, "not in CP1252"),)), encoding="cp1252"
    ),
    "cp1252 called UTF-8": CsvFile(
        b"text\n\xe9\ngood\n", texts("good", rejected=((2, "not in UTF-8"),)), encoding="utf-8"
    ),
    "Shift JIS, named": CsvFile(
        "text\nとても良い\n".encode("shift_jis"), texts("とても良い"), encoding="shift_jis"
    ),
    "Cyrillic, named": CsvFile(
        "text\n\u0436\u0444\n".encode("cp1251"), texts("\u0436\u0444"), encoding="cp1251"
    ),
    "UTF-16, named": CsvFile(GERMAN.encode("utf-16"), GERMAN_ROWS, encoding="UTF-16"),
    "UTF-16 without a mark, named": CsvFile(
        GERMAN.encode("utf-16-le"), GERMAN_ROWS, encoding="utf-16"
    ),
    "UTF-32, named": CsvFile(
        GERMAN.encode("utf-32"),
        Refused("no encoding that is read is named utf-32"),
        encoding="utf-32",
    ),
    "ISO-2022-JP, which has escape sequences": CsvFile(
        "text\n良い\n".encode("iso2022_jp"),
        Refused("no encoding that is read is named iso-2022-jp"),
        encoding="iso-2022-jp",
    ),
    "UTF-7, whose sequences need not end": CsvFile(
        b"text\n+AGE-\n", Refused("no encoding that is read is named utf-7"), encoding="utf-7"
    ),
    "an unknown encoding": CsvFile(
        b"text\ngood\n", Refused("no encoding that is read is named klingon"), encoding="klingon"
    ),
    "a broken row in UTF-8": CsvFile(
        "text\nGröße\nCafé\n".encode() + b"\xe9\nfine\n",
        texts("Größe", "Café", "fine", rejected=((4, "not in UTF-8"),)),
    ),
    "an overlong and a cut character": CsvFile(
        "text\nä\nö\nü\n".encode() + b"\xc0\x80\n\xe2\x82\nfine",
        texts("ä", "ö", "ü", "fine", rejected=((5, "not in UTF-8"), (6, "not in UTF-8"))),
    ),
    "broken bytes in another column": CsvFile(
        "id,text\nä,good\nö,bad\n".encode() + b"\xff,fine\n",
        pairs(("ä", "good"), ("ö", "bad"), rejected=((4, "not in UTF-8"),)),
    ),
    # Quotes.
    "quotes": CsvFile(
        b'text,id\n"a ""good"", film",1\n"",2\n',
        Rows(["text", "id"], [['a "good", film', "1"], ["", "2"]]),
    ),
    "quotes in an unquoted field": CsvFile(b'text\na 5" screen\n', texts('a 5" screen')),
    "text after a closing quote": CsvFile(
        b'id,text\n1,"good" film\n2,bad\n', pairs(("2", "bad"), rejected=((2, "invalid CSV"),))
    ),
    "an open quote in the last line": CsvFile(
        b'id,text\n1,good\n2,"bad\n', pairs(("1", "good"), rejected=((3, "invalid CSV"),))
    ),
    "an open quote before good lines": CsvFile(
        b'id,text\n1,"open\n2,good\n3,fine\n',
        pairs(("2", "good"), ("3", "fine"), rejected=((2, "invalid CSV"),)),
    ),
    "an open quote before a quoted field": CsvFile(
        b'id,text\n1,"open\n2,good\n3,"a, b"\n4,fine\n',
        pairs(("2", "good"), ("3", "a, b"), ("4", "fine"), rejected=((2, "invalid CSV"),)),
    ),
    "an open quote before more than a field may hold": CsvFile(
        b'id,text\n1,"open\n' + MANY,
        pairs(*((str(n), f"row {n}") for n in range(2, 20_002)), rejected=((2, "invalid CSV"),)),
    ),
    "open quotes in two lines": CsvFile(
        b'id,text\n1,"open\n2,"open too\n3,fine\n',
        pairs(("3", "fine"), rejected=((2, "invalid CSV"), (3, "invalid CSV"))),
    ),
    "an open quote in the header": CsvFile(
        b'id,"text\n1,good\n', Refused("the header cannot be read")
    ),
    # Blanks after delimiters.
    "a blank before a quote": CsvFile(
        b'id, text\n1, "good, very"\n2, "bad"\n', pairs(("1", "good, very"), ("2", "bad"))
    ),
    "blanks before quotes in the header": CsvFile(
        b'"id", "text"\n"1", "good, very"\n2, bad\n', pairs(("1", "good, very"), ("2", "bad"))
    ),
    "a blank before a quote with semicolons": CsvFile(
        b'id; text\n1; "good; very"\n', pairs(("1", "good; very"))
    ),
    "several blanks before a quote": CsvFile(
        b'id, text\n1,   "good, very"\n 2 ,bad \n', pairs(("1", "good, very"), ("2 ", "bad "))
    ),
    "a blank before a quote after a line end": CsvFile(
        b'id, text\n1, "good,\nvery"\n2, ""\n', pairs(("1", "good,\nvery"), ("2", ""))
    ),
    "blanks and too few fields": CsvFile(
        b'id, text\n1, "good"\n  \n2, "bad"\n',
        pairs(("1", "good"), ("2", "bad"), rejected=((3, "1 fields; the header has 2"),)),
    ),
    "blanks and sep=": CsvFile(b'sep=;\nid; text\n1; "good; very"\n', pairs(("1", "good; very"))),
    "blanks without quotes are kept": CsvFile(
        b"id, text\n1, good\n", Rows(["id", " text"], [["1", " good"]], column=1)
    ),
    "a blank before a quote in a row alone": CsvFile(
        b'id,text\n1, "good"\n', pairs(("1", ' "good"'))
    ),
    "blanks before some names": CsvFile(
        b'id, note,text\n1, "a",good\n',
        Rows(["id", " note", "text"], [["1", ' "a"', "good"]], column=2),
    ),
    "several blanks that delimit before a quote": CsvFile(
        b'id  text\n1  "good"\n',
        Rows(["id", "", "text"], [["1", "", "good"]], column=2),
        delimiter="space",
    ),
    "a blank after a tab is text": CsvFile(b'id\ttext\n1\t "good"\n', pairs(("1", ' "good"'))),
    # Columns and fields.
    "other columns are kept": CsvFile(
        b"id,text,note\n1,good,=1+1\n",
        Rows(["id", "text", "note"], [["1", "good", "=1+1"]], column=1),
    ),
    "too many and too few fields": CsvFile(
        b"id,text\n1,good\n2\n3,a,b\n4,fine\n",
        pairs(
            ("1", "good"),
            ("4", "fine"),
            rejected=(
                (3, "1 fields; the header has 2"),
                (4, "3 fields; the header has 2"),
            ),
        ),
    ),
    "a line of spaces": CsvFile(
        b"id,text\n  \n1,good\n2,bad\n",
        pairs(("1", "good"), ("2", "bad"), rejected=((2, "1 fields; the header has 2"),)),
    ),
    "another column": CsvFile(
        b"text,review\nno,good\n",
        Rows(["text", "review"], [["no", "good"]], column=1),
        column="review",
    ),
    "a name in another case and with spaces": CsvFile(
        b"ID, Text \n1,good\n", Rows(["ID", " Text "], [["1", "good"]], column=1)
    ),
    "an exact name before a similar one": CsvFile(
        b"Text,text\nno,good\n", Rows(["Text", "text"], [["no", "good"]], column=1)
    ),
    "two similar names": CsvFile(
        b"Text,TEXT\nno,good\n", Refused("columns 1 and 2 have the same name: text")
    ),
    "the column of the texts twice": CsvFile(
        b"text,id,text\na,1,b\n", Refused("columns 1 and 3 have the same name: text")
    ),
    "another column twice": CsvFile(
        b"a,text,a\n1,b,2\n", Refused("columns 1 and 3 have the same name: a")
    ),
    "two columns without a name": CsvFile(
        b"text,,\na,,\n", Refused("columns 2 and 3 have no name")
    ),
    "no column has a name": CsvFile(b",,\n1,2,3\n", Refused("no column has a name")),
    "a column without a name": CsvFile(
        b",text\n0,good\n", Rows(["", "text"], [["0", "good"]], column=1)
    ),
    "no such column": CsvFile(
        b"id,review\n1,a\n", Refused("no column text; the columns are: id, review")
    ),
    "no header": CsvFile(
        b"I like it\nI do not\n", Refused("no column text; the columns are: I like it")
    ),
    "a header alone": CsvFile(b"id,text\n", pairs()),
    "NUL": CsvFile(b"text\na\x00b\n", texts("a\0b")),
    "spaces around values are theirs": CsvFile(b"id,text\n 1 , good \n", pairs((" 1 ", " good "))),
    # Other files.
    "nothing": CsvFile(b"", Refused("must begin with the names of its columns")),
    "blank lines alone": CsvFile(b"\n\n", Refused("must begin with the names of its columns")),
    "JSON lines": CsvFile(b'{"text": "good", "id": 1}\n', Refused("it has JSON lines, not CSV")),
    "Parquet": CsvFile(b"PAR1\x15\x04\x15", Refused("it is a Parquet file")),
    "a spreadsheet": CsvFile(
        b"PK\x03\x04\x14\x00", Refused("it is a ZIP archive or a spreadsheet")
    ),
    "an old spreadsheet": CsvFile(b"\xd0\xcf\x11\xe0\xa1", Refused("it is a spreadsheet of Excel")),
    "a tar archive": CsvFile(
        b"a.csv,text".ljust(257, b"\0") + b"ustar\x0000", Refused("it is a tar archive")
    ),
    "a tar archive of GNU": CsvFile(
        b"text,id".ljust(257, b"\0") + b"ustar  \0", Refused("it is a tar archive")
    ),
    "the word ustar where tar has it": CsvFile(
        b"text\n" + b"a" * 252 + b"ustar\n", texts("a" * 252 + "ustar")
    ),
    "an SQLite database": CsvFile(
        b"SQLite format 3\0\x10\0,text\n", Refused("it is an SQLite database")
    ),
    "an Arrow file": CsvFile(b"ARROW1\0\0,text\n", Refused("it is an Arrow file")),
    "a name like that of an Arrow file": CsvFile(
        b"ARROW1,text\n1,good\n", Rows(["ARROW1", "text"], [["1", "good"]], column=1)
    ),
    "an Avro file": CsvFile(b"Obj\x01\x04,text\n", Refused("it is an Avro file")),
    "NUL in the header": CsvFile(b"id,n\0te,text\n1,a,good\n", Refused("so it is no text file")),
    "NUL in the header of other fields": CsvFile(
        b"text,\0\0\x01\n1,good\n", Refused("so it is no text file")
    ),
    "a PDF document": CsvFile(b"%PDF-1.7\n", Refused("it is a PDF document")),
}
