from treesearch.report.page.html import Column, table


def test_long_headings_are_marked_and_keep_their_words_and_bounds_stay_on_one_line():
    long = "reward over the best builder of at most its cost [95 %]"
    page = table([Column("tree", number=False), Column(long), Column("cost")], [["a", "-", "1"]], label="Trees")
    bounds = '<span class="whole">[95 %]</span>'
    assert f'<th scope="col" class="number long">{long.replace("[95 %]", bounds)}</th>' in page
    assert '<th scope="col">tree</th>' in page
    assert '<th scope="col" class="number">cost</th>' in page
