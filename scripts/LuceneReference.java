// What Lucene makes of texts and queries, for tests/environments/lucene/golden. It needs a JDK and Anserini's fat jar
// (castorini/anserini 0.22.1, which has Lucene 9.5.0; the Python package pyserini 0.22.1 contains it):
//
//   javac -cp anserini-0.22.1-fatjar.jar scripts/LuceneReference.java
//   java -cp anserini-0.22.1-fatjar.jar:scripts LuceneReference analyze < texts.jsonl > terms.jsonl
//   java -cp anserini-0.22.1-fatjar.jar io.anserini.index.IndexCollection -collection JsonCollection \
//       -generator DefaultLuceneDocumentGenerator -threads 1 -input FOLDER -index INDEX
//   java -cp anserini-0.22.1-fatjar.jar:scripts LuceneReference search INDEX < queries.jsonl > hits.jsonl
//
// Lines of texts and queries are JSON strings; FOLDER has a file of lines {"id": ..., "contents": ...}.

import com.fasterxml.jackson.databind.ObjectMapper;
import io.anserini.analysis.AnalyzerUtils;
import io.anserini.analysis.DefaultEnglishAnalyzer;
import io.anserini.search.SimpleSearcher;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import org.apache.lucene.analysis.Analyzer;

public class LuceneReference {
  public static void main(String[] arguments) throws Exception {
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
    ObjectMapper json = new ObjectMapper();
    boolean analyze = arguments[0].equals("analyze");
    Analyzer analyzer = DefaultEnglishAnalyzer.newDefaultInstance();
    SimpleSearcher searcher = analyze ? null : new SimpleSearcher(arguments[1]);
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      String text = json.readValue(line, String.class);
      List<Object> found = new ArrayList<>();
      if (analyze) {
        found.addAll(AnalyzerUtils.analyze(analyzer, text));
      } else {
        for (SimpleSearcher.Result hit : searcher.search(text, 50)) {
          found.add(List.of(hit.docid, hit.score));
        }
      }
      out.println(json.writeValueAsString(found));
    }
    out.flush();
  }
}
