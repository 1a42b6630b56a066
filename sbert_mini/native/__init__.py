"""C++ that `sbert_mini.runtime.native` calls, compiled when the package is installed, if there is a compiler."""
