REPORTS = dict(zip(range(1, 13), "abcdefghijnm", strict=True))
