from rnntune.training.result import RunResult


def test_a_notebook_shows_the_scores_escaped():
    result = {"test_accuracy": 0.91234, "test_rows": 5000, "refit": False, "seconds": {"a": 1.0}}
    text = RunResult(uri="runs/<b>", result=result)._repr_html_()
    assert "<tr><th>run</th><td>runs/&lt;b&gt;</td></tr>" in text
    assert "<tr><th>test_accuracy</th><td>0.9123</td></tr>" in text
    assert "<td>5,000</td>" in text
    assert "refit" not in text
    assert "seconds" not in text
