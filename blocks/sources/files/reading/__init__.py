"""Reading files in a process of its own, whose program this is: it imports the standard library and itself only.

Closing any descriptor of a file drops all POSIX locks that the process holds on it: a process that has a
database open, by SQLite say, and reads the file beside it has its locks broken without a word. So the files of a tree
are opened and closed in a child process that holds no lock; `readers.py` starts it and asks it. Content comes back in
memory that both see, so that it is copied once, as if it had been read by who asked.
"""
