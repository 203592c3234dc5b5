"""What is known about a file beside its pixels: metadata.csv, Kaggle's xlsx, DICOM header."""

import csv
import io
import zipfile
from pathlib import PurePosixPath

from openpyxl import load_workbook

from .dataset import Dataset, DatasetError, Entry
from .raster import frame_digest

# Column of metadata.csv -> field of the record.
COLUMNS = {
    "patient_id": "patient_id",
    "issuer": "issuer",
    "study_uid": "study_uid",
    "series_uid": "series_uid",
    "sop_uid": "sop_uid",
    "source": "source",
    "label_source": "label_source",
    "view": "view",
    "projection": "view",
    "age": "age",
    "sex": "sex",
}
FIELDS = ("patient_id", "issuer", "study_uid", "series_uid", "sop_uid", "source", "label_source", "view", "age", "sex")
# Most bytes that an xlsx may inflate to; cells beyond the others are not looked at.
XLSX_BYTES_MAX = 256 << 20
XLSX_ROWS_MAX, XLSX_COLUMNS_MAX = 2_000_000, 64
LABEL_SOURCES = ("folder", "report", "PCR", "biopsy", "follow-up", "reader")
XLSX_SUFFIX = ".metadata.xlsx"


class Metadata:
    """Rows by file; `unmatched` counts rows that name no image, by document."""

    def __init__(self, dataset: Dataset) -> None:
        self.rows: dict[str, dict[str, str]] = {}
        self.sources: dict[str, str] = {}
        self.unmatched: dict[str, int] = {}
        for document in dataset.documents:
            if document.lower() == "metadata.csv":
                self._read_csv(dataset, document)
            elif document.lower().endswith(XLSX_SUFFIX):
                self._read_xlsx(dataset, document)

    def class_of(self, entry: Entry) -> str | None:
        """metadata.csv wins over the folder; None: unlabelled."""
        return self.rows.get(entry.file, {}).get("class") or entry.folder_class

    def record(self, entry: Entry, sha256: str, facts: dict) -> dict:
        """The record of the interchange form; facts: from the DICOM header, least trusted."""
        row = self.rows.get(entry.file, {})
        found = {key: value for key, value in facts.items() if key != "tags"}
        tags = dict(facts.get("tags", {}))
        if entry.file in self.sources:
            found["source"] = self.sources[entry.file]
        if entry.folder_class is not None and self.class_of(entry) == entry.folder_class:
            found["label_source"] = "folder"
        for column, value in row.items():
            if column in COLUMNS:
                found[COLUMNS[column]] = value
            elif column not in ("file", "class"):
                tags[column] = value
        record = {"id": frame_digest(sha256, entry.frame)[:32], **entry.named(), "sha256": sha256}
        record.update((field, found[field]) for field in FIELDS if found.get(field))
        return {**record, "tags": tags} if tags else record

    def _read_csv(self, dataset: Dataset, document: str) -> None:
        files = {entry.file for entry in dataset.entries}
        try:
            reader = csv.DictReader(io.StringIO(dataset.read(document).decode("utf-8-sig"), newline=""))
            rows = list(reader)
        except (UnicodeDecodeError, csv.Error) as error:
            raise DatasetError(f"`{document}` can't be read: {error}") from error
        if "file" not in (reader.fieldnames or []):
            raise DatasetError(f"`{document}` has no column `file`")
        for row in rows:
            file = (row["file"] or "").strip().removeprefix("./")
            if file in files:
                cells = {key: value.strip() for key, value in row.items() if key and isinstance(value, str)}
                self.rows[file] = {key: value for key, value in cells.items() if value}
                check_label_source(document, self.rows[file])
            else:
                self.unmatched[document] = self.unmatched.get(document, 0) + 1

    def _read_xlsx(self, dataset: Dataset, document: str) -> None:
        """Kaggle's list of one class: FILE NAME (case and ending vary), FORMAT, SIZE, URL."""
        class_name = document[: -len(XLSX_SUFFIX)].lower()
        by_stem = {
            PurePosixPath(entry.file).stem.lower(): entry.file
            for entry in dataset.entries
            if (entry.folder_class or "").lower() == class_name
        }
        try:
            data = io.BytesIO(dataset.read(document))
            with zipfile.ZipFile(data) as members:
                inflated = sum(member.file_size for member in members.infolist())
            if inflated > XLSX_BYTES_MAX:
                raise DatasetError(f"it inflates to more than {XLSX_BYTES_MAX} bytes")
            book = load_workbook(data, read_only=True, data_only=True)
            # Blank rows before a cell far out are not kept: there may be a million.
            cells = book.worksheets[0].iter_rows(max_row=XLSX_ROWS_MAX, max_col=XLSX_COLUMNS_MAX, values_only=True)
            rows = [row for row in cells if any(row)]
        except Exception as error:  # openpyxl raises whatever zip, XML and its own code raise
            raise DatasetError(f"`{document}` can't be read: {error}") from error
        titles = [str(cell or "").strip().upper() for cell in (rows[0] if rows else ())]
        if "FILE NAME" not in titles or "URL" not in titles:
            raise DatasetError(f"`{document}` has no columns FILE NAME and URL")
        name_at, url_at = titles.index("FILE NAME"), titles.index("URL")
        for row in rows[1:]:
            name, url = (str(row[at] or "").strip() if at < len(row) else "" for at in (name_at, url_at))
            if not name:
                continue
            file = by_stem.get(name.lower()) or by_stem.get(PurePosixPath(name.lower()).stem)
            if file is None:
                self.unmatched[document] = self.unmatched.get(document, 0) + 1
            elif url:
                self.sources[file] = url


def check_label_source(document: str, row: dict[str, str]) -> None:
    """What an archive would not take is refused before anything is embedded."""
    source = row.get("label_source", LABEL_SOURCES[0])
    if source == "pcr":
        row["label_source"] = "PCR"
    elif source not in LABEL_SOURCES:
        raise DatasetError(f"`{document}`: label_source `{source}` is none of {', '.join(LABEL_SOURCES)}")
