# zip of documents, then the archive is tested and unpacked.
zip -q -r work/documents.zip Documents Desktop
unzip -tq work/documents.zip
mkdir -p work/unzipped
unzip -q work/documents.zip -d work/unzipped
