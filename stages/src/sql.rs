//! SQL predicates (`where = "score > 0.5 AND language = 'zh'"`), computed by polars over scalar columns.
//!
//! In: the text of a predicate, then the columns it names, row by row. Out: one truth value per row; where the predicate is
//! null (a null cell), the row is not kept, as in SQL.

use crate::read::short;
use llavm_pipeline::StageError;
use polars::prelude::{
    AggExpr, BooleanChunked, Column, DataFrame, Expr, IntoLazy, NamedFrom, PolarsResult, Series,
};
use polars::sql::sql_expr;

/// The type of a column in a predicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScalarType {
    Bool,
    Int,
    Float,
    Text,
}

/// The values of one column, one per row.
#[derive(Clone, Debug)]
pub enum Scalars {
    Bool(Vec<Option<bool>>),
    Int(Vec<Option<i64>>),
    Float(Vec<Option<f64>>),
    Text(Vec<Option<String>>),
}

impl Scalars {
    /// A column without rows.
    pub fn empty(scalar: ScalarType) -> Self {
        match scalar {
            ScalarType::Bool => Self::Bool(Vec::new()),
            ScalarType::Int => Self::Int(Vec::new()),
            ScalarType::Float => Self::Float(Vec::new()),
            ScalarType::Text => Self::Text(Vec::new()),
        }
    }

    /// The value of one row, for messages; long texts are cut.
    pub fn shown(&self, row: usize) -> String {
        fn text<T: ToString>(values: &[Option<T>], row: usize) -> String {
            values.get(row).and_then(Option::as_ref).map_or_else(|| "null".to_owned(), T::to_string)
        }
        match self {
            Self::Bool(values) => text(values, row),
            Self::Int(values) => text(values, row),
            Self::Float(values) => text(values, row),
            Self::Text(values) => {
                values.get(row).and_then(Option::as_deref).map_or_else(|| "null".to_owned(), short)
            }
        }
    }

    fn column(&self, name: &str) -> Column {
        let series = match self {
            Self::Bool(values) => Series::new(name.into(), values),
            Self::Int(values) => Series::new(name.into(), values),
            Self::Float(values) => Series::new(name.into(), values),
            Self::Text(values) => Series::new(name.into(), values),
        };
        series.into()
    }
}

/// A parsed predicate.
#[derive(Clone)]
pub struct Predicate {
    text: String,
    expression: Expr,
    columns: Vec<String>,
}

impl Predicate {
    /// Parses a SQL expression; the error quotes it.
    pub fn parse(text: &str) -> Result<Self, StageError> {
        let expression = sql_expr(text).map_err(|cause| {
            StageError::new(format!("`{text}` is no SQL condition: {cause}"))
                .help("Write what would follow WHERE, such as `length(caption) > 20 AND language = 'zh'`.")
                .because(cause)
        })?;
        let mut columns: Vec<String> = Vec::new();
        for node in &expression {
            if let Some(what) = beyond_the_row(node) {
                let error = StageError::new(format!(
                    "`{text}`: {what} looks at more rows than the one it decides on"
                ));
                return Err(error.help(
                    "A condition is computed row by row: compare columns, not sums or ranks over the table.",
                ));
            }
            if let Expr::Column(name) = node
                && !columns.iter().any(|seen| seen == name.as_str())
            {
                columns.push(name.to_string());
            }
        }
        Ok(Self { text: text.to_owned(), expression, columns })
    }

    /// The predicate as the user wrote it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The columns it names, each once, in the order they appear.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Whether the predicate makes sense for columns of these types, in the order of [`Predicate::columns`].
    pub fn check(&self, types: &[ScalarType]) -> Result<(), StageError> {
        let columns: Vec<Scalars> = types.iter().map(|scalar| Scalars::empty(*scalar)).collect();
        self.mask(&columns, 0).map(|_| ())
    }

    /// One truth value per row; `columns` in the order of [`Predicate::columns`].
    pub fn mask(&self, columns: &[Scalars], rows: usize) -> Result<Vec<bool>, StageError> {
        self.evaluate(columns, rows)
            .map_err(|cause| StageError::new(format!("where = \"{}\": {cause}", self.text)).because(cause))
    }

    fn evaluate(&self, columns: &[Scalars], rows: usize) -> PolarsResult<Vec<bool>> {
        let named = self.columns.iter().zip(columns);
        let frame = DataFrame::new(rows, named.map(|(name, values)| values.column(name)).collect())?;
        let result = frame.lazy().select([self.expression.clone().alias("keep")]).collect()?;
        let kept: &BooleanChunked = result.column("keep")?.bool()?;
        // A predicate without columns (`1 = 1`) gives a single value for all rows.
        let only = (kept.len() == 1 && rows != 1).then(|| kept.get(0).unwrap_or(false));
        Ok(match only {
            Some(value) => vec![value; rows],
            None => kept.iter().map(|value| value.unwrap_or(false)).collect(),
        })
    }
}

/// What an expression is called whose value depends on other rows than its own.
fn beyond_the_row(node: &Expr) -> Option<&'static str> {
    match node {
        // `IN ('a', 'b')` is computed as an implode of its list; of a column, it is an aggregate as any other.
        Expr::Agg(AggExpr::Implode { input, .. }) if matches!(**input, Expr::Literal(_)) => None,
        Expr::Agg(_) | Expr::Len => Some("an aggregate (COUNT, SUM, AVG, MIN, MAX …)"),
        Expr::Over { .. } => Some("a window function (OVER …)"),
        Expr::Sort { .. } | Expr::SortBy { .. } => Some("a sort"),
        Expr::SubPlan(..) => Some("a subquery"),
        Expr::Gather { .. }
        | Expr::Slice { .. }
        | Expr::Filter { .. }
        | Expr::Explode { .. }
        | Expr::Eval { .. } => Some("a selection of rows"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_at_other_rows_is_refused() {
        for text in [
            "score > AVG(score)",
            "COUNT(*) > 3",
            "score = MAX(score)",
            "ROW_NUMBER() OVER (ORDER BY score) < 9",
            "SUM(score) OVER (PARTITION BY language) > 1",
            "language IN ('zh') AND score > AVG(score)",
        ] {
            let error = Predicate::parse(text).err().unwrap_or_else(|| panic!("`{text}` was taken"));
            assert!(error.to_string().contains("row"), "{error}");
        }
    }

    #[test]
    fn a_predicate_keeps_the_rows_sql_would_keep() {
        let predicate =
            Predicate::parse("score >= 0.5 AND (language = 'zh' OR length(caption) > 3)").unwrap();
        assert_eq!(predicate.columns(), ["score", "language", "caption"]);
        let text =
            |values: [Option<&str>; 4]| Scalars::Text(values.map(|value| value.map(str::to_owned)).to_vec());
        let columns = [
            Scalars::Float(vec![Some(0.5), Some(0.4), None, Some(1.0)]),
            text([Some("zh"), Some("zh"), Some("zh"), Some("en")]),
            text([None, Some("long text"), Some("long text"), Some("four")]),
        ];
        assert_eq!(predicate.mask(&columns, 4).unwrap(), [true, false, false, true]);
    }

    #[test]
    fn like_in_and_null_tests_work_as_in_sql() {
        let texts = ["a cat", "a dog", "<person> runs"].map(|text| Some(text.to_owned())).to_vec();
        let kept =
            |text: &str| Predicate::parse(text).unwrap().mask(&[Scalars::Text(texts.clone())], 3).unwrap();
        assert_eq!(kept("caption LIKE 'a %'"), [true, true, false]);
        assert_eq!(kept("caption IN ('a cat')"), [true, false, false]);
        assert_eq!(kept("caption NOT LIKE '%<%>%'"), [true, true, false]);
        assert_eq!(kept("caption IS NOT NULL"), [true, true, true]);
        assert_eq!(kept("caption ~ '^a (cat|dog)$'"), [true, true, false]);
    }

    #[test]
    fn mistakes_are_reported_before_any_row_is_read() {
        for text in ["score >", "", "score > 1; DROP TABLE x", "WHERE score > 1"] {
            let error = Predicate::parse(text).err().unwrap();
            assert!(error.to_string().starts_with(&format!("`{text}` is no SQL condition: ")), "{error}");
        }
        let reported = |text: &str| {
            let predicate = Predicate::parse(text).unwrap();
            predicate.check(&[ScalarType::Float]).unwrap_err().to_string()
        };
        for text in ["score + 1", "score > 'high'", "upper(score) = 'A'"] {
            assert!(reported(text).starts_with(&format!("where = \"{text}\": ")), "{}", reported(text));
        }
    }

    #[test]
    fn a_predicate_without_columns_holds_for_all_rows_or_none() {
        assert_eq!(Predicate::parse("1 = 1").unwrap().mask(&[], 3).unwrap(), [true; 3]);
        assert_eq!(Predicate::parse("1 = 2").unwrap().mask(&[], 0).unwrap(), [false; 0]);
    }
}
