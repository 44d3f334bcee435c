"""Open questions about gpt-oss as things one can measure: each study is a command, a call and one JSON report."""
