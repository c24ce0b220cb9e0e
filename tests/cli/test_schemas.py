from pathlib import Path

import pytest

from nonn_plan.schemas import DOCUMENTS, schema_text, write_schemas

PUBLISHED = Path(__file__).parents[2] / "docs" / "schemas"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_published_schema_is_that_of_the_code(name):
    """`make schemas` writes them anew."""
    assert (PUBLISHED / f"{name}.schema.json").read_text() == schema_text(DOCUMENTS[name])


def test_every_field_of_every_file_is_described():
    for name, document in DOCUMENTS.items():
        schema = document.model_json_schema()
        for part in (schema, *schema.get("$defs", {}).values()):
            for field, described in part.get("properties", {}).items():
                assert "description" in described, f"{name}: {field}"


def test_schemas_are_written_where_asked(tmp_path):
    write_schemas(tmp_path)
    assert len(list(tmp_path.iterdir())) == len(DOCUMENTS)
