// Parquet through Apache Arrow, a batch of rows at a time.
#include "halo/base/check.h"
#include "halo/data/readers.h"

#ifdef HALO_HAVE_PARQUET
#include <arrow/api.h>
#include <arrow/io/file.h>
#include <parquet/arrow/reader.h>

#include <memory>
#include <optional>
#endif

namespace halo {

#ifdef HALO_HAVE_PARQUET

namespace {

constexpr int64_t kRowsPerBatch = 256;

void check(const arrow::Status& status, const std::string& file) {
  if (!status.ok()) throw_error("{}: damaged Parquet file: {}", file, status.message());
}

template <class T>
T unwrap(arrow::Result<T> result, const std::string& file) {
  check(result.status(), file);
  return std::move(result).ValueUnsafe();
}

// One column of a batch that may be text, in whichever of Arrow's forms.
class TextColumn {
 public:
  explicit TextColumn(std::shared_ptr<arrow::Array> column) : column_(std::move(column)) {
    if (const auto* extension = dynamic_cast<const arrow::ExtensionArray*>(column_.get()))
      column_ = extension->storage();
    if (const auto* dictionary = dynamic_cast<const arrow::DictionaryArray*>(column_.get()))
      words_ = std::make_shared<TextColumn>(dictionary->dictionary());
  }

  bool is_text() const {
    switch (column_->type_id()) {
      case arrow::Type::STRING:
      case arrow::Type::LARGE_STRING:
      case arrow::Type::STRING_VIEW:
      case arrow::Type::NA:  // a column of nulls alone
        return true;
      default:
        return words_ && words_->is_text();
    }
  }

  // Of text; empty where the value is null.
  std::string at(int64_t row) const {
    if (column_->IsNull(row)) return "";
    if (words_)
      return words_->at(static_cast<const arrow::DictionaryArray&>(*column_).GetValueIndex(row));
    switch (column_->type_id()) {
      case arrow::Type::STRING:
        return static_cast<const arrow::StringArray&>(*column_).GetString(row);
      case arrow::Type::LARGE_STRING:
        return static_cast<const arrow::LargeStringArray&>(*column_).GetString(row);
      case arrow::Type::STRING_VIEW:
        return static_cast<const arrow::StringViewArray&>(*column_).GetString(row);
      default:
        return "";
    }
  }

 private:
  std::shared_ptr<arrow::Array> column_;
  std::shared_ptr<TextColumn> words_;  // of a dictionary
};

TextColumn text_column(const arrow::RecordBatch& batch, const std::string& name,
                       const std::string& file) {
  const auto array = batch.GetColumnByName(name);
  TextColumn column(array);
  if (!column.is_text())
    throw_error("{}: column \"{}\" is {}, not text", file, name, array->type()->ToString());
  return column;
}

}  // namespace

void read_parquet(const std::filesystem::path& path, const std::function<void(Document)>& use,
                  SourceUse source_use) {
  const std::string file = path.string();
  parquet::arrow::FileReaderBuilder builder;
  check(builder.OpenFile(file), file);
  parquet::ArrowReaderProperties properties;
  properties.set_batch_size(kRowsPerBatch);
  builder.properties(properties);
  const auto reader = unwrap(builder.Build(), file);

  std::shared_ptr<arrow::Schema> schema;
  check(reader->GetSchema(&schema), file);
  const int text_index = schema->GetFieldIndex("text");
  const int source_index = schema->GetFieldIndex("source");
  if (text_index < 0) throw_error("{}: no column \"text\"", file);
  // Columns with children have several leaves, so all are asked for unless the file is flat.
  std::vector<int> columns;
  if (reader->parquet_reader()->metadata()->num_columns() == schema->num_fields()) {
    columns.push_back(text_index);
    if (source_index >= 0) columns.push_back(source_index);
  }
  std::vector<int> groups(reader->num_row_groups());
  for (int g = 0; g < reader->num_row_groups(); ++g) groups[g] = g;
  const auto batches = columns.empty()
                           ? unwrap(reader->GetRecordBatchReader(groups), file)
                           : unwrap(reader->GetRecordBatchReader(groups, columns), file);
  while (const auto batch = unwrap(batches->Next(), file)) {
    const TextColumn text = text_column(*batch, "text", file);
    std::optional<TextColumn> source;
    if (source_index >= 0 && source_use == SourceUse::kNeeded) {
      source = text_column(*batch, "source", file);
    } else if (source_index >= 0) {
      source.emplace(batch->GetColumnByName("source"));
      if (!source->is_text()) source.reset();
    }
    for (int64_t row = 0; row < batch->num_rows(); ++row) {
      use({text.at(row), source ? source->at(row) : ""});
    }
  }
}

#else

void read_parquet(const std::filesystem::path& path, const std::function<void(Document)>&,
                  SourceUse) {
  throw_error(
      "{}: this build reads no Parquet; run tools/bootstrap with pyarrow and build again, or "
      "convert "
      "the file to .jsonl",
      path.string());
}

#endif

}  // namespace halo
