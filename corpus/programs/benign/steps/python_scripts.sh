# Short Python scripts over tables and texts.
python3 -S -E - <<'PY'
import csv, glob, json, os
rows = []
for path in sorted(glob.glob("Documents/**/*.csv", recursive=True)):
    with open(path, newline="") as file:
        rows += list(csv.reader(file))[1:]
with open("work/rows.json", "w") as out:
    json.dump(rows, out)
for path in sorted(glob.glob("Documents/**/*.md", recursive=True)):
    with open(path) as file, open("work/" + os.path.basename(path) + ".words", "w") as out:
        out.write("\n".join(sorted(set(file.read().split()))))
PY
python3 -S -E -c 'import json; print(len(json.load(open("work/rows.json"))))' > work/count.txt
