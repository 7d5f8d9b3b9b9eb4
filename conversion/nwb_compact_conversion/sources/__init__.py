"""Every kind of source, read into what it holds: one module a recording system or file format, with its helpers beside it."""
