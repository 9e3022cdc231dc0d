"""Settings of Sphinx for the site that docs/build.py makes."""

project = "cas"
html_title = "cas"
html_theme = "furo"
html_copy_source = False
html_show_sphinx = False
extensions = ["myst_parser"]
myst_heading_anchors = 4
nitpicky = True
suppress_warnings = ["misc.highlighting_failure"]  # not every block is in a language
exclude_patterns = ["ci/*", "playbooks/*.md", "requirements.txt"]
