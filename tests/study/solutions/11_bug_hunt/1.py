REPORTS = dict(enumerate("ABCDEFGHIJNM", start=1))
