"""Tables as Excel, pandas and people write them, and the public ones."""

from __future__ import annotations

import random

import pytest
from conftest import ROOT
from corpus import csv_table as corpus
from corpus.sources import HEIGHT, WIDTH, find_losses, write_image

from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats.source import ReaderOptions
from vae_aug.ingest.formats.tables import is_box_table, read_csv

HEADER = "filename,xmin,ymin,xmax,ymax,label"
BOX = ("nodule", [10, 12, 30, 20])


def write(folder, text, *names, file="train.csv", encoding="utf-8"):
    for name in names or ("a.png",):
        write_image(folder / name)
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_bytes(text.encode(encoding))


def summarize(annotations):
    """Return by image what the source says of it, and its labels and boxes."""
    return {
        image.source_id: (
            image.annotation,
            list(zip(image.labels, image.boxes.tolist(), strict=True)),
        )
        for image in annotations.images
    }


def read_one(folder, text, **options):
    write(folder, text, **options)
    ((state, boxes),) = summarize(read_csv(folder)).values()
    return state, boxes


# --- Text


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_separators_encodings_and_line_ends(tmp_path, separator, encoding, end):
    rows = [HEADER, "a.png,10,12,30,20,Läsion", ",,,,,", "a.png,1,2,3,4,nodule", ""]
    text = end.join(rows).replace(",", separator)
    state, boxes = read_one(tmp_path, text, encoding=encoding)
    assert state == "complete"
    assert boxes == [("Läsion", [10, 12, 30, 20]), ("nodule", [1, 2, 3, 4])]


@pytest.mark.parametrize(
    "row",
    [
        "a.png;10,5;12,25;30;20;nodule",
        '"a.png";"10,5";"12,25";"30,0";"20";"nodule"',
        "a.png; 10,5 ; 12,25 ;30;20; nodule ",
        "A.PNG;10,5;12,25;30;20;nodule;;",
    ],
)
def test_decimal_commas(tmp_path, row):
    text = f"{HEADER.replace(',', ';')}\n{row}\n"
    assert read_one(tmp_path, text) == ("complete", [("nodule", [10.5, 12.25, 30, 20])])


def test_decimal_commas_in_quotes_among_commas(tmp_path):
    text = f'{HEADER}\na.png,"10,5","12,25",30,20,nodule\n'
    assert read_one(tmp_path, text) == ("complete", [("nodule", [10.5, 12.25, 30, 20])])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.png;1,234;12;1300;20;nodule", "the comma in '1,234' .line 2. may be a decimal comma"),
        ("a.png;10,5;12.5;30;20;nodule", "numbers with a comma .line 2. and with a point .line 2."),
        ("a.png;1.234,5;12;1300;20;nodule", "with a comma .* and with a point"),
    ],
)
def test_numbers_that_may_be_others_are_refused(tmp_path, row, message):
    write(tmp_path, f"{HEADER.replace(',', ';')}\n{row}\n")
    with pytest.raises(AnnotationError, match=message):
        read_csv(tmp_path)


def test_excel_names_its_separator(tmp_path):
    text = f"sep=;\r\n{HEADER.replace(',', ';')}\r\na.png;10;12;30;20;nodule\r\n"
    assert read_one(tmp_path, text) == ("complete", [BOX])


@pytest.mark.parametrize("empty", ["", "NaN", "nan", "NULL", "None", "NA", "N/A", "-", "<NA>"])
def test_what_tools_write_for_nothing(tmp_path, empty):
    text = f"{HEADER}\na.png,{','.join([empty] * 5)}\n"
    assert read_one(tmp_path, text) == ("complete", [])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a.png,10,12,,20,nodule", "line 2: some of its coordinates are empty"),
        ("a.png,,,,,nodule", "line 2: has a class and no coordinates"),
        ("a.png,10,12,30,20,", "line 2: has coordinates and no class"),
        ("a.png,10,12,30,20,NaN", "line 2: has coordinates and no class"),
        ("a.png,10,12,30,20,No finding", "line 2: says that there is no finding, and has"),
        ("a.png,10,12,30", "line 2: has 4 cells where the header has 6"),
        ("a.png", "line 2: has 1 cells where the header has 6"),
        ("a.png,10,12,30,20,nodule,more", "line 2: has 7 cells where the header has 6"),
        ('a.png,10,12,30,20,nodule"', "line 2: has a quotation mark without its pair"),
        ('a.png,10,12,30,20,"nod\nule"', "line 3: has a cell of several lines"),
    ],
)
def test_a_row_that_says_half_is_a_fault(tmp_path, row, reason):
    write(tmp_path, f"{HEADER}\n{row}\n")
    found = read_csv(tmp_path)
    assert summarize(found) == {"a.png": ("faulty", [])}
    assert found.problems[0].file == "train.csv"
    assert found.problems[0].reason.startswith(reason)


@pytest.mark.parametrize("number", ["x", "10px", "10.May", "1_0", "1 0"])
def test_what_is_no_number_is_none(tmp_path, number):
    _state, boxes = read_one(tmp_path, f"{HEADER}\na.png,{number},12,30,20,nodule\n")
    # The rules for boxes drop it later, and count its image as faulty.
    assert [label for label, _ in boxes] == ["nodule"] and str(boxes[0][1][0]) == "nan"


@pytest.mark.parametrize(
    ("column", "value", "state"),
    [
        ("EncodedPixels", "10 5 20 5", "faulty"),
        ("EncodedPixels", "-1", "complete"),
        ("polygon", "[[1, 2], [3, 4], [5, 6]]", "faulty"),
        ("mask_path", "masks/a.png", "faulty"),
        ("cx", "20", "faulty"),
        ("category", "nodule", "faulty"),
        ("category", "Normal", "complete"),
        ("num_boxes", "1", "faulty"),
        ("num_boxes", "0.0", "complete"),
        ("has_lesion", "yes", "faulty"),
        ("no_lesions", "1", "complete"),
        ("target", "1", "faulty"),
        ("pathology", "MALIGNANT", "faulty"),
        ("pathology", "BENIGN_WITHOUT_CALLBACK", "faulty"),
        ("diagnosis", "nodule", "faulty"),
        ("Diagnosis", "no_nodule", "complete"),
        ("finding", "1", "faulty"),
        ("finding", "no change of the nodule", "faulty"),
        ("Finding Labels", "Mass|Nodule", "faulty"),
        ("finding_categories", "['No Finding']", "complete"),
        ("image_abnormality", "0", "complete"),
        ("malignancy", "3", "faulty"),
        ("is_cancer", "True", "faulty"),
        ("tumor_type", "glioma", "faulty"),
        ("classification", "unremarkable", "complete"),
        ("comment", "small nodule", "faulty"),
        ("comment", "blurred, no nodule", "complete"),
        ("status", "in progress", "none"),
        ("skip", "1", "none"),
        ("skip", "0", "complete"),
        ("nodule", "1", "faulty"),
        ("nodule", "0", "complete"),
        ("hash", "61", "complete"),
        ("age", "61", "complete"),
        ("width", "64", "complete"),
    ],
)
def test_what_is_marked_in_another_column_is_no_negative(tmp_path, column, value, state):
    text = f'{HEADER},{column}\na.png,,,,,,"{value}"\nb.png,10,12,30,20,nodule,"{value}"\n'
    write(tmp_path, text, "a.png", "b.png")
    assert summarize(read_csv(tmp_path)) == {"a.png": (state, []), "b.png": ("complete", [BOX])}


@pytest.mark.parametrize(
    ("column", "values", "label", "state"),
    [
        ("mass", "71.5 62", "nodule", "complete"),
        ("Patient_Mass", "71,5 104", "nodule", "complete"),
        ("mass (kg)", "12 62", "nodule", "complete"),
        ("mass", "1 0", "nodule", "faulty"),
        ("mass", "3 90", "nodule", "faulty"),  # a count or grade
        ("mass", "12.5 21", "nodule", "faulty"),  # rather mm
        ("mass", "71.5 -", "nodule", "faulty"),
        ("mass", "71.5 large", "nodule", "faulty"),
        ("mass", "71.5 62", "Mass", "faulty"),
        ("num_masses", "71.5 62", "nodule", "faulty"),
        ("lesion", "71.5 62", "nodule", "faulty"),
    ],
)
def test_the_mass_of_a_body_is_no_finding(tmp_path, column, values, label, state):
    one, two = values.split()
    rows = [f"{HEADER},{column}", f'a.png,,,,,,"{one}"', f"b.png,10,12,30,20,{label},{two}"]
    write(tmp_path, "\n".join(rows), "a.png", "b.png")
    found = {name: said for name, (said, _) in summarize(read_csv(tmp_path)).items()}
    assert found == {"a.png": state, "b.png": "complete"}


@pytest.mark.parametrize(("value", "state"), [("1", "faulty"), ("0", "complete")])
def test_a_column_with_the_name_of_a_class_that_says_yes_is_no_negative(tmp_path, value, state):
    text = f"{HEADER},left_stone\na.png,,,,,,{value}\nb.png,10,12,30,20,Left stone,1\n"
    write(tmp_path, text, "a.png", "b.png")
    found = {name: said for name, (said, _) in summarize(read_csv(tmp_path)).items()}
    assert found == {"a.png": state, "b.png": "complete"}


@pytest.mark.parametrize(
    ("column", "value", "state"),
    [
        ("angle", "30", "faulty"),
        ("bbox_rotation", "0.0", "complete"),
        ("deleted", "1", "faulty"),
        ("deleted", "0", "complete"),
        ("angles", "30", "complete"),
    ],
)
def test_a_box_that_is_turned_or_was_deleted_is_a_fault(tmp_path, column, value, state):
    text = f"{HEADER},{column}\na.png,10,12,30,20,nodule,{value}\n"
    assert read_one(tmp_path, text)[0] == state


def test_a_row_with_a_box_counts_more_than_one_without(tmp_path):
    text = f"{HEADER}\na.png,,,,,\na.png,10,12,30,20,nodule\n"
    assert read_one(tmp_path, text) == ("complete", [BOX])


def test_trailing_separators_in_every_row(tmp_path):
    text = f"{HEADER}\na.png,10,12,30,20,nodule,,\na.png,1,2,3,4,nodule,,\n"
    assert read_one(tmp_path, text)[0] == "complete"
    text = f"{HEADER},,,\na.png,10,12,30,20,nodule\na.png,1,2,3,4,nodule,,,\n"
    assert read_one(tmp_path, text)[0] == "complete"


def test_two_rows_run_together_spoil_both_images(tmp_path):
    text = f"{HEADER}\na.png,10,12,30,20,nodule,b.png,1,2,3,4,nodule\nb.png,,,,,\nc.png,,,,,\n"
    write(tmp_path, text, "a.png", "b.png", "c.png")
    states = {name: state for name, (state, _) in summarize(read_csv(tmp_path)).items()}
    assert states == {"a.png": "faulty", "b.png": "faulty", "c.png": "complete"}


def test_many_broken_rows_are_refused(tmp_path):
    write(tmp_path, "\n".join([HEADER, *["a.png,1,2,3,4,a,b"] * 101]))
    with pytest.raises(AnnotationError, match="more than 100 rows have another number of cells"):
        read_csv(tmp_path)


def test_tables_that_were_joined(tmp_path):
    rows = f"{HEADER}\na.png,10,12,30,20,nodule\n\ufeff{HEADER}\na.png,1,2,3,4,nodule\n"
    assert len(read_one(tmp_path, rows)[1]) == 2
    other = "filename,label,xmin,ymin,xmax,ymax"
    write(tmp_path, f"{HEADER}\na.png,10,12,30,20,nodule\n{other}\na.png,nodule,1,2,3,4\n")
    with pytest.raises(AnnotationError, match="line 3 is a header of another order"):
        read_csv(tmp_path)


# --- Columns


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("File Name,X Min,Y_MIN,xMax,y-max,Class", "a.png,10,12,30,20,nodule"),
        (",filename,xmin,ymin,xmax,ymax,label", "0,a.png,10,12,30,20,nodule"),
        ("Unnamed: 0,image_path,x1,y1,x2,y2,class", "0,a.png,10,12,30,20,nodule"),
        ("image,x,y,w,h,label", "a.png,10,12,20,8,nodule"),
        ("image,x,y,width,height,label", "a.png,10,12,20,8,nodule"),
        ("image,bbox_x,bbox_y,bbox_width,bbox_height,label", "a.png,10,12,20,8,nodule"),
        ("image,x_center,y_center,width,height,label", "a.png,20,16,20,8,nodule"),
        ("image,bbox_xywh,label", 'a.png,"[10, 12, 20, 8]",nodule'),
        ("image,bbox_xyxy,label", "a.png,10 12 30 20,nodule"),
        # 48 x 64: 10/64, 12/48, 30/64, 20/48
        (
            "image,xmin_rel,ymin_rel,xmax_rel,ymax_rel,label",
            "a.png,.15625,.25,.46875,.41667,nodule",
        ),
        ("image,norm_x1,norm_y1,norm_x2,norm_y2,label", "a.png,.15625,.25,.46875,.41667,nodule"),
        ("label,ymax,xmax,ymin,xmin,image", "nodule,20,30,12,10,a.png"),
        ("filename,label,class_name,xmin,ymin,xmax,ymax", "a.png,3,nodule,10,12,30,20"),
    ],
)
def test_columns_under_their_names(tmp_path, header, row):
    state, ((label, box),) = read_one(tmp_path, f"{header}\n{row}\n")
    assert (state, label) == ("complete", "nodule")
    assert box == pytest.approx([10, 12, 30, 20], abs=1e-3)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("image,xmin,ymin,xmax,ymax", "label missing from .*add a column 'label'"),
        ("image,bbox,label", "the column 'bbox' does not say what its four numbers are"),
        ("image,xmin,ymin,xmax,ymax,label,Label", "has the column 'label' twice"),
        ("image,xmin,ymin,xmin,ymin,xmax,ymax,label", "has the column 'xmin' twice"),
        ("image,xmin,ymin,xmax,ymax,x1,y1,x2,y2,label", "has several sets of coordinates"),
        ("image,x1,y1,x2,y2,x3,y3,x4,y4,label", "has the corners of polygons"),
        ("seriesuid,coordX,coordY,coordZ,diameter_mm", "a table of LUNA16"),
    ],
)
def test_columns_that_do_not_tell_are_refused_by_name(tmp_path, header, message):
    write(tmp_path, f"{header}\n{','.join('1' for _ in header.split(','))}\n")
    assert is_box_table(tmp_path / "train.csv")
    with pytest.raises(AnnotationError, match=message):
        read_csv(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "name,number\nnodule,0\n",
        "nodule,0\n",
        "image,label\na.png,nodule\n",
        "",
        "ÿ,ÿ\n",
        "filename,region_count,region_shape_attributes,region_attributes\n",
    ],
)
def test_tables_without_boxes(tmp_path, text):
    (tmp_path / "t.csv").write_bytes(text.encode("latin-1"))
    assert not is_box_table(tmp_path / "t.csv")


def test_relative_values_in_columns_of_pixels_are_refused(tmp_path):
    write(tmp_path, "image,x,y,w,h,label\na.png,.1,.2,.3,.1,nodule\na.png,0.5,0.5,0.1,0.2,nodule\n")
    with pytest.raises(AnnotationError, match="coordinates are relative"):
        read_csv(tmp_path)


def test_pixels_in_relative_columns_are_refused(tmp_path):
    header = "image,xmin_rel,ymin_rel,xmax_rel,ymax_rel,label"
    write(tmp_path, f"{header}\na.png,10,12,30,20,nodule\n")
    with pytest.raises(AnnotationError, match="so they are pixels"):
        read_csv(tmp_path)
    write(tmp_path, f"{header}\na.png,10,12,30,20,nodule\na.png,0.5,0.5,0.75,1,nodule\n")
    expected = ("faulty", [("nodule", [32, 24, 48, 48])])
    assert summarize(read_csv(tmp_path)) == {"a.png": expected}


def test_numbers_of_classes_are_one_however_pandas_writes_them(tmp_path):
    write(tmp_path, f"{HEADER}\na.png,1,2,3,4,1.0\na.png,10,12,30,20,1\n")
    assert read_csv(tmp_path).label_names == ("1",)


@pytest.mark.parametrize(
    ("columns", "one", "two", "reason"),
    [
        ("width,height", "64,48", "48,64", "its rows name several sizes"),
        ("patient,area", "P1,5", "P2,5", "its rows name several patients"),
    ],
)
def test_rows_that_do_not_agree_on_their_image(tmp_path, columns, one, two, reason):
    rows = f"a.png,10,12,30,20,nodule,{one}\na.png,1,2,3,4,nodule,{two}\n"
    write(tmp_path, f"{HEADER},{columns}\n{rows}")
    found = read_csv(tmp_path)
    assert summarize(found)["a.png"][0] == "faulty" and found.problems[0].reason == reason


# --- Names of images


@pytest.mark.parametrize(
    "spelled",
    [
        "Bé.PNG",
        "./Bé.png",
        "Bé",
        "Bé.jpg",
        "images\\Bé.png",
        "/home/me/data/Bé.png",
        "C:\\data\\images\\Bé.png",
        "gs://bucket/Bé.png",
    ],
)
def test_names_in_other_spellings(tmp_path, spelled):
    write(tmp_path, f"{HEADER}\n{spelled},10,12,30,20,nodule\n", "images/Bé.png")
    assert summarize(read_csv(tmp_path)) == {"images/Bé.png": ("complete", [BOX])}


def test_spellings_of_one_image_are_one_image(tmp_path):
    rows = "a.png,10,12,30,20,nodule\nA.PNG,1,2,3,4,cyst\nimages/a.png,5,6,7,8,cyst\n"
    write(tmp_path, f"{HEADER}\n{rows}", "images/a.png")
    ((state, boxes),) = summarize(read_csv(tmp_path)).values()
    assert state == "complete" and len(boxes) == 3


def test_images_of_one_name_in_several_folders(tmp_path):
    rows = "p1/1.png,10,12,30,20,nodule\np2/1.png,,,,,\np3/1.png,1,2,3,4,nodule\n"
    write(tmp_path, f"{HEADER}\n{rows}", "set/p1/1.png", "set/p2/1.png")
    found = read_csv(tmp_path)
    assert summarize(found) == {
        "set/p1/1.png": ("complete", [BOX]),
        "set/p2/1.png": ("complete", []),
    }
    assert [(p.file, p.effect) for p in found.problems] == [("p3/1.png", "skipped")]


def test_a_name_that_fits_several_images_spoils_them(tmp_path):
    rows = "p1/1.png,10,12,30,20,nodule\np2/1.png,,,,,\n1.png,1,2,3,4,nodule\n"
    write(tmp_path, f"{HEADER}\n{rows}", "p1/1.png", "p2/1.png")
    assert [state for state, _ in summarize(read_csv(tmp_path)).values()] == ["faulty"] * 2


@pytest.mark.parametrize("other", ["/home/me/a.png", "a.jpg", "set/a"])
def test_a_missing_image_that_may_be_another_spoils_it(tmp_path, other):
    write(tmp_path, f"{HEADER}\na.png,,,,,\n{other},1,2,3,4,nodule\n")
    assert summarize(read_csv(tmp_path)) == {"a.png": ("faulty", [])}


def test_a_missing_image_says_nothing_of_others_and_unlisted_ones_are_not_taken(tmp_path):
    write(tmp_path, f"{HEADER}\na.png,,,,,\ngone.png,1,2,3,4,nodule\n", "a.png", "unlisted.png")
    found = read_csv(tmp_path)
    assert summarize(found) == {"a.png": ("complete", [])}
    assert [(p.file, p.effect) for p in found.problems] == [("gone.png", "skipped")]


def test_a_box_without_a_name_may_be_any_images(tmp_path):
    write(tmp_path, f"{HEADER}\na.png,,,,,\n,1,2,3,4,nodule\n")
    found = read_csv(tmp_path)
    assert summarize(found) == {"a.png": ("faulty", [])}
    assert "the first is line 3" in found.notes[0]


def test_images_outside_the_source_are_not_taken(tmp_path):
    write_image(tmp_path / "other" / "a.png")
    write(tmp_path / "in", f"{HEADER}\n../other/a.png,0.1,0.2,0.3,0.4,nodule\n", "b.png")
    assert summarize(read_csv(tmp_path / "in")) == {}
    options = ReaderOptions(images=tmp_path / "other")
    write(tmp_path / "in", f"{HEADER}\na.png,10,12,30,20,nodule\n", "b.png")
    found = read_csv(tmp_path / "in", "train", options)
    assert list(summarize(found).values()) == [("complete", [BOX])]


# --- Splits


def test_a_column_of_splits(tmp_path):
    rows = "a.png,10,12,30,20,nodule,Training\nb.png,,,,,,val\nc.png,,,,,,\nd.png,,,,,,trian\n"
    names = [f"{letter}.png" for letter in "abcd"]
    write(tmp_path, f"{HEADER},split\n{rows}", *names, file="all.csv")
    assert summarize(read_csv(tmp_path)) == {"a.png": ("complete", [BOX])}
    found = read_csv(tmp_path, "validation")
    assert summarize(found) == {"b.png": ("complete", [])}
    assert found.notes == ("2 rows name no split that is known, and are not read",)
    with pytest.raises(AnnotationError, match="no rows of the split 'test'; it has train, val"):
        read_csv(tmp_path, "test")


def test_an_image_in_two_splits_is_faulty(tmp_path):
    rows = "a.png,10,12,30,20,nodule,train\na.png,1,2,3,4,nodule,test\n"
    write(tmp_path, f"{HEADER},split\n{rows}")
    assert summarize(read_csv(tmp_path))["a.png"][0] == "faulty"


def test_a_column_of_folds_names_no_splits(tmp_path):
    write(tmp_path, f"{HEADER},fold\na.png,10,12,30,20,nodule,3\n")
    assert summarize(read_csv(tmp_path)) == {"a.png": ("complete", [BOX])}


@pytest.mark.parametrize(
    "file",
    [
        "train.csv",
        "Train.CSV",
        "train/_annotations.csv",
        "train_labels.csv",
        "boxes-train.csv",
        "boxes.csv",
        "annotations/annotations_train.csv",
        "train.tsv",
    ],
)
def test_where_a_table_lies(tmp_path, file):
    write(tmp_path, f"{HEADER}\na.png,10,12,30,20,nodule\n", "images/a.png", file=file)
    (tmp_path / "classes.csv").write_text("nodule,0\n")
    (tmp_path / "train" / "images").mkdir(parents=True, exist_ok=True)
    write_image(tmp_path / "train" / "images" / "a.png")
    assert [v for v in summarize(read_csv(tmp_path)).values()] == [("complete", [BOX])]


def test_several_tables_are_refused(tmp_path):
    for file in ("one_train.csv", "two_train.csv"):
        write(tmp_path, f"{HEADER}\na.png,10,12,30,20,nodule\n", file=file)
    with pytest.raises(AnnotationError, match="2 files may describe the images"):
        read_csv(tmp_path)


def test_a_table_outside_the_source_is_not_opened(tmp_path):
    write(tmp_path / "other", f"{HEADER}\na.png,10,12,30,20,nodule\n")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "train.csv").symlink_to(tmp_path / "other" / "train.csv")
    with pytest.raises(AnnotationError, match=r"train\.csv: is reached by a link"):
        read_csv(tmp_path / "in")


# --- Whether an image is annotated at all


@pytest.mark.parametrize(
    ("column", "yes", "no"),
    [
        ("annotated", "1", "0"),
        ("is_annotated", "True", "False"),
        ("Reviewed", "yes", ""),
        ("labelled", "1.0", "0.0"),
        ("is_labeled", "TRUE", "pending"),
        ("annotation_status", "done", "todo"),
        ("unannotated", "0", "1"),
        ("not_reviewed", "no", "yes"),
    ],
)
def test_a_row_that_says_that_nobody_looked_is_no_negative(tmp_path, column, yes, no):
    rows = [f"{HEADER},{column}", f"a.png,10,12,30,20,nodule,{yes}"]
    rows += [f"b.png,,,,,,{yes}", f"c.png,,,,,,{no}", f"d.png,,,,,No finding,{no}"]
    names = ("a.png", "b.png", "c.png", "d.png")
    write(tmp_path, "\n".join(rows), *names)
    assert summarize(read_csv(tmp_path)) == {
        "a.png": ("complete", [BOX]),
        "b.png": ("complete", []),
        "c.png": ("none", []),
        "d.png": ("none", []),
    }


@pytest.mark.parametrize(
    "rows",
    [
        "a.png,10,12,30,20,nodule,0",
        "a.png,10,12,30,20,nodule,1\na.png,,,,,,0",
    ],
)
def test_boxes_of_an_image_that_is_not_annotated_contradict_it(tmp_path, rows):
    write(tmp_path, f"{HEADER},annotated\n{rows}\n")
    assert summarize(read_csv(tmp_path)) == {"a.png": ("faulty", [BOX])}


def test_a_box_needs_no_word_that_its_image_is_annotated(tmp_path):
    write(tmp_path, f"{HEADER},reviewed\na.png,10,12,30,20,nodule,\n")
    assert summarize(read_csv(tmp_path)) == {"a.png": ("complete", [BOX])}


# --- Tables without a header, and public ones


def test_keras_retinanet_has_no_header(tmp_path):
    text = "images/a.png,10,12,30,20,nodule\nimages/b.png,,,,,\n"
    write(tmp_path, text, "images/a.png", "images/b.png", file="annotations.csv")
    (tmp_path / "classes.csv").write_text("nodule,0\n")
    assert is_box_table(tmp_path / "annotations.csv")
    expected = {"images/a.png": ("complete", [BOX]), "images/b.png": ("complete", [])}
    assert summarize(read_csv(tmp_path)) == expected


@pytest.mark.parametrize(
    "text", ["doe.png,x,12,30,20,nodule\n", "1,10,12,30,20,0.9\n", "0,10,12,30,20\n"]
)
def test_what_is_no_headerless_table(tmp_path, text):
    write(tmp_path, text)
    with pytest.raises(AnnotationError, match="missing from the first row, which is no header"):
        read_csv(tmp_path)


@pytest.mark.parametrize(
    ("words", "split"),
    [
        (("TRAIN", "Training", "train", "TRAINING"), "train"),
        (("VALIDATE", "Validation", "valid", "VALIDATION"), "val"),
        (("TEST", "Testing", "test", "Test"), "test"),
    ],
)
def test_words_of_automl_for_splits(tmp_path, words, split):
    lines = [f"{w},gs://b/{i}.png,n,0.1,0.2,,,0.4,0.5,,\n" for i, w in enumerate(words)]
    other = "TEST" if split == "train" else "TRAIN"
    lines.append(f"{other},gs://b/4.png,n,0.1,0.2,,,0.4,0.5,,\n")
    write(tmp_path, "".join(lines), *(f"{i}.png" for i in range(5)), file="boxes.csv")
    assert is_box_table(tmp_path / "boxes.csv")
    assert list(summarize(read_csv(tmp_path, split))) == [f"{i}.png" for i in range(4)]


def test_automl(tmp_path):
    text = (
        "TRAIN,gs://bucket/a.png,nodule,0.15625,0.25,,,0.46875,0.5,,\n"
        "VALIDATION,gs://bucket/b.png,,,,,,,,,\n"
    )
    write(tmp_path, text, "a.png", "b.png", file="all.csv")
    assert summarize(read_csv(tmp_path)) == {"a.png": ("complete", [("nodule", [10, 12, 30, 24])])}
    assert summarize(read_csv(tmp_path, "val")) == {"b.png": ("complete", [])}


def test_nih_as_it_is_published(tmp_path):
    text = (
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
        "00013118_008.png,Atelectasis,10.5,12,20,8,,,\n"
        "00013118_009.png,Mass,1,2,3,4\n"
    )
    names = ("images/00013118_008.png", "images/00013118_009.png")
    write(tmp_path, text, *names, file="BBox_List_2017.csv")
    found = read_csv(tmp_path)
    assert summarize(found) == {
        names[0]: ("complete", [("Atelectasis", [10.5, 12, 30.5, 20])]),
        names[1]: ("complete", [("Mass", [1, 2, 4, 6])]),
    }
    assert {image.patient for image in found.images} == {"00013118"}


def test_vindr_is_negative_only_if_all_readers_say_so(tmp_path):
    text = (
        "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n"
        "a,No finding,14,R1,,,,\na,nodule,8,R2,10,12,30,20\n"
        "b,No finding,14,R1,,,,\nb,No finding,14,R2,,,,\nc,nodule,8,R1,,,,\n"
    )
    write(tmp_path, text, "train/a.png", "train/b.png", "train/c.png")
    found = read_csv(tmp_path)
    assert list(summarize(found).values()) == [
        ("complete", [BOX]),
        ("complete", []),
        ("faulty", []),
    ]
    assert found.label_names == ("nodule",)


def test_vindr_mammo(tmp_path):
    text = (
        "study_id,series_id,image_id,height,width,finding_categories,xmin,ymin,xmax,ymax,split\n"
        f"s1,x,i1,{HEIGHT},{WIDTH},\"['Mass', 'Asymmetry']\",10,12,30,20,training\n"
        f"s1,x,i2,{HEIGHT},{WIDTH},['No Finding'],,,,,training\n"
        f"s2,x,i3,{HEIGHT},{WIDTH},['Mass'],1,2,3,4,test\n"
    )
    names = [f"images/s{1 + i // 2}/i{1 + i}.png" for i in range(3)]
    write(tmp_path, text, *names, file="finding_annotations.csv")
    found = read_csv(tmp_path)
    box = [10, 12, 30, 20]
    assert summarize(found) == {
        names[0]: ("complete", [("Mass", box), ("Asymmetry", box)]),
        names[1]: ("complete", []),
    }
    assert (found.images[0].patient, found.images[0].height) == ("s1", HEIGHT)


def test_rsna_contradictions_are_faults(tmp_path):
    rows = "a,,,,,1\nb,10,12,20,8,0\nc,10,12,20,8,\nd,10,12,20,8,1\ne,,,,,0\n"
    write(tmp_path, f"patientId,x,y,width,height,Target\n{rows}", *(f"{n}.png" for n in "abcde"))
    states = [state for state, _ in summarize(read_csv(tmp_path)).values()]
    assert states == ["faulty"] * 3 + ["complete"] * 2


def test_open_images(tmp_path):
    text = (
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf\n"
        "a,xclick,/m/01g317,1,0.15625,0.46875,0.25,0.5,0,1,0\n"
        "a,xclick,/m/01g317,1,0,0.5,0,1,0,0,1\n"
    )
    write(tmp_path, text)
    (image,) = read_csv(tmp_path).images
    assert image.boxes.tolist() == [[10, 12, 30, 24], [0, 0, 32, 48]]
    assert (image.is_crowd, image.truncated) == ((False, True), (True, False))


def test_deeplesion_boxes_that_are_noisy_are_faults(tmp_path):
    header = (
        "File_name,Patient_index,Bounding_boxes,Coarse_lesion_type,Possibly_noisy,Train_Val_Test"
    )
    rows = (
        '000001_01_01_109.png,1,"10, 12, 30, 20",5,0,1\n000001_01_01_110.png,1,"1, 2, 3, 4",5,1,1\n'
        '000002_01_01_109.png,2,"1, 2, 3",5,0,1\n000003_01_01_109.png,3,"1, 2, 3, 4",5,0,1\n'
    )
    names = [f"Images_png/00000{p}_01_01/{s}.png" for p, s in ((1, 109), (1, 110), (2, 109))]
    write(tmp_path, f"{header}\n{rows}", *names, file="DL_info.csv")
    found = read_csv(tmp_path)
    assert summarize(found)[names[0]] == ("complete", [("lung", [10, 12, 30, 20])])
    assert summarize(found)[names[1]] == ("faulty", [])
    # Three numbers are no box. Series 3 is missing, and not taken for series 2.
    assert str(summarize(found)[names[2]][1][0][1][3]) == "nan"
    assert [p.file for p in found.problems if p.effect == "skipped"] == ["000003_01_01/109.png"]


# --- Cases that people reported, and random ones


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("03-annotated-sets-taken-for-bare-images/csvheaderless", BOX),
        ("07-exif-orientation/exif6csv", ("nodule", [36, 40, 44, 60])),
        ("19-csv-decimal-commas/csveu", ("Läsion", [10.5, 12.25, 30, 20])),
    ],
)
def test_reported_cases(case, expected):
    folder = ROOT.parent / "shared" / "cases" / "field" / case
    if not folder.is_dir():
        pytest.skip(f"no reported cases: {folder} is not a folder")
    assert list(summarize(read_csv(folder)).values()) == [("complete", [expected])]


def test_no_box_is_lost_whatever_is_in_a_table(tmp_path):
    outcomes = {"refused": 0, "read": 0}
    for seed in range(250):
        folder = tmp_path / str(seed)
        folder.mkdir()
        truth = corpus.make(random.Random(seed), folder)
        try:
            found = read_csv(folder)
        except AnnotationError:
            outcomes["refused"] += 1
            continue
        assert find_losses(found, truth) == [], seed
        outcomes["read"] += any(image.annotation == "complete" for image in found.images)
    # The corpus tests something only if most tables are read.
    assert outcomes["read"] > 125 and outcomes["refused"] > 5
