#!/bin/sh
# Write a backup to FOLDER and check it. Then delete the backups that are older than DAYS.
# Usage: deploy/backup.sh FOLDER DAYS
set -eu
folder=$1
days=$2
cd "$(dirname "$0")/.."
file=$folder/clinic-$(date -u +%Y-%m-%dT%H%M%SZ).backup
.venv/bin/flask --app app backup create "$file"
.venv/bin/flask --app app backup check "$file"
find "$folder" -maxdepth 1 -type f -name 'clinic-*.backup' -mtime "+$days" -delete
