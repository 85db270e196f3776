# A database is filled from a table and asked.
db=work/items.db
sqlite3 "$db" 'create table items(date text, item text, amount real, city text)'
files_in 2 '*.csv' Documents Desktop Downloads
for f in $found; do sqlite3 "$db" '.mode csv' ".import '$f' items"; done
rnd 5 25
awk -v n="$r" 'BEGIN { for (k = 1; k <= n; k++) printf "insert into items values(2024, \"x%d\", %d, \"y\"); update items set amount = amount + 1 where item like \"%%a%%\";\n", k, k }' | sqlite3 "$db"
sqlite3 "$db" 'select item, sum(amount) from items group by item order by 2' > work/report.txt
