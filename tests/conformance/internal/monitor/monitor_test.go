package monitor

import (
	"errors"
	"os"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

func families(t *testing.T, text string) scrape {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	parsed, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

const histogram = `# TYPE h histogram
h_bucket{op="a",le="1"} 1
h_bucket{op="a",le="+Inf"} 2
h_sum{op="a"} 3
h_count{op="a"} 2
`

func TestAShapeIsTypeLabelsAndBuckets(t *testing.T) {
	want := shape(families(t, histogram)["h"])
	for _, other := range []string{
		strings.ReplaceAll(histogram, "op", "kind"),
		strings.ReplaceAll(histogram, `le="1"`, `le="2"`),
		"# TYPE h counter\nh{op=\"a\"} 2\n",
	} {
		if got := shape(families(t, other)["h"]); got == want {
			t.Errorf("%s is like %s", got, want)
		}
	}
	more := strings.ReplaceAll(histogram, `"a"`, `"b"`)
	if got := shape(families(t, histogram+strings.TrimPrefix(more, "# TYPE h histogram\n"))["h"]); got != want {
		t.Errorf("another series changed the shape to %s", got)
	}
}

func TestAChangeIsPerSeriesAndZeroIsNone(t *testing.T) {
	family := func(text string) *dto.MetricFamily { return families(t, "# TYPE c counter\n"+text)["c"] }
	before := family("c{k=\"a\"} 2\nc{k=\"b\"} 5\n")
	after := family("c{k=\"a\"} 3\nc{k=\"b\"} 5\nc{k=\"d\"} 0\nc{k=\"e\"} 4\n")
	if got := text(change(before, after)); got != "{k=\"a\"} 1\n{k=\"e\"} 4" {
		t.Errorf("%s", got)
	}
	if got := text(change(nil, before)); got != "{k=\"a\"} 2\n{k=\"b\"} 5" {
		t.Errorf("%s", got)
	}
	if got := text(values(families(t, histogram)["h"])); got != "{op=\"a\"} 2" {
		t.Errorf("%s", got)
	}
}

func TestSizesAreAlikeWithinAMagnitude(t *testing.T) {
	if !sameMagnitude(20480, 36864) || sameMagnitude(1, 100) || sameMagnitude(0, 1) {
		t.Error("a size was taken for another")
	}
}

func TestFamiliesThatDifferAreFound(t *testing.T) {
	const counter = "# TYPE c counter\nc 1\n"
	for _, pair := range [][2]string{
		{counter, ""}, {"", counter}, {counter, "# TYPE c gauge\nc 1\n"}, {"# TYPE go_x gauge\ngo_x 1\n", "# TYPE go_x gauge\ngo_x 1\n"},
	} {
		v := &verdict{}
		v.shapes(families(t, pair[0]), families(t, pair[1]))
		if len(v.differences) != 1 {
			t.Errorf("%q: %v", pair, v.differences)
		}
	}
	v := &verdict{}
	v.shapes(families(t, counter+"# TYPE go_x gauge\ngo_x 1\n"), families(t, counter+"# TYPE process_threads gauge\nprocess_threads 1\n"))
	if v.passed != 1 || len(v.differences) != 0 {
		t.Errorf("%d passed, %v", v.passed, v.differences)
	}
}

func TestEveryMissingFamilyIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../../../docs/compatibility.md")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, name := range append(append([]string{}, Missing...), Own...) {
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("docs/compatibility.md does not list `%s`", name)
		}
	}
}
