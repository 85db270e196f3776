# tar over parts of the home, listed and tested.
some_of Documents Pictures Projects .; top=$w
tar -czf work/tree.tar.gz --exclude work "$top"
tar -tzf work/tree.tar.gz > work/tree.list
