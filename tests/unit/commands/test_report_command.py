"""`duplus report`: bad words end with a message, and write nothing."""

import pytest

from duplus_nnunet import cli


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "'nowhere'"),
        (["nowhere", "--cases", "-1"], "--cases is -1"),
        (["nowhere", "--labels", "labels"], "--images"),
        (["nowhere", "-o", "."], "-o"),
    ],
)
def test_bad_words_end_with_a_message(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", *words]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
