from rnntune.inference.texts import free_delimiter


def test_a_delimiter_stands_in_no_name_of_a_class():
    assert free_delimiter(("a", "b")) == "|"
    assert free_delimiter(("a", "b"), ";") == ";"
    assert free_delimiter(("a;x", "b"), ";") == "|"
    assert free_delimiter(("a|b", "c;d")) == ","
    assert free_delimiter(("a|b||c|||;", "c,d\te")) == "\x1f"
